"""Commands for models: describe, evaluate, export."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hpsearch.atomic_files import check_target_file, check_target_folder, write_target
from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.cli.options import SplitName
from hpsearch.cli.search import console_observer
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import DEFAULT_HOME, ROOT_SIFT
from hpsearch.errors import UserError

BASE_MODEL = "hpsearch-base"
Model = Annotated[
    str,
    typer.Argument(
        help="hpsearch-base, models:/NAME@champion, models:/NAME/VERSION, a folder of `train`, or "
        "SEARCH/TRIAL."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the output if it exists.")]


@app.command(rich_help_panel="Models")
def describe(
    model: Model,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A .npy file, a .parquet file, or a folder for the official layout.",
        ),
    ],
    patches: Annotated[
        str | None,
        typer.Argument(
            help="mini, tiny, a patch store, a folder of strips (SEQUENCE/ref.png …), a folder of "
            "patches (PNG, 32×32 or 65×65), or a .npy file (N×32×32)."
        ),
    ] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option(
            help="File of keypoints in a picture, which is then given in place of patches: x, y, "
            "size, angle as OpenCV, or COLMAP's text file. Without MODEL, hpsearch-base is used."
        ),
    ] = None,
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Describe clean patches, where there are noisy ones too."),
    ] = False,
    threads: Annotated[
        int,
        typer.Option(
            min=1,
            help="Threads of the CPU; more are faster only on cores that are otherwise idle.",
        ),
    ] = 1,
    force: Force = False,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Compute descriptors of patches with a model.

    The name sets the format: .npy has one row per patch (N×128, float32), .parquet also sequence,
    point and view, a folder the official benchmark's OUTPUT/SEQUENCE/VIEW.csv. Patches are read in
    chunks, so they may exceed the memory.

    With --keypoints, one's own keypoints of a picture are described, one row each, into a .npy
    file, or into a .txt file of COLMAP's layout.

    Example: hpsearch describe models:/patch-descriptor@champion mini --output descriptors
    """
    from hpsearch.evaluation.descriptor_io import check_can_write
    from hpsearch.search.workspace import Workspace

    if keypoints is not None:
        model, image = (BASE_MODEL, model) if patches is None else (model, patches)
        _describe_keypoints(model, Path(image), keypoints, output, force, tracking_uri, home)
        return
    if patches is None:
        raise UserError("give the patches to describe, or a picture with --keypoints FILE")
    check_can_write(output, force=force)
    Workspace(home).check_model(model)

    from hpsearch.workflows.describe_patches import describe_patches

    done = describe_patches(
        model,
        patches,
        output,
        clean=clean,
        force=force,
        threads=threads,
        tracking_uri=tracking_uri,
        home=home,
        observer=console_observer(),
    )
    print_plain(
        f"{done.count:,} descriptors of {done.dimensions} numbers in {done.files}: "
        f"{done.patches_per_s:,.0f} patches a second"
    )


def _describe_keypoints(
    model: str,
    image: Path,
    keypoints: Path,
    output: Path,
    force: bool,
    tracking_uri: str | None,
    home: Path,
) -> None:
    """Describe keypoints of a file in a picture."""
    from hpsearch.evaluation.descriptor_io import atomic_output, check_can_write

    if output.suffix not in (".npy", ".txt"):
        raise UserError(f"{output} must end in .npy, or in .txt for COLMAP's layout; rename it")
    check_can_write(output, force=force)
    _check_matching_model(model, home)

    import numpy as np

    from hpsearch.data.keypoint_files import colmap_features, read_keypoints
    from hpsearch.workflows.keypoint_descriptors import describe_keypoints

    points = read_keypoints(keypoints)
    found = describe_keypoints(image, points, model=model, tracking_uri=tracking_uri, home=home)
    with atomic_output(output, force=force) as draft:
        if output.suffix == ".txt":
            draft.write_text(colmap_features(points, found), "utf-8")
        else:
            with draft.open("wb") as file:
                np.save(file, found.astype(np.float32))
    print_plain(f"{len(found):,} descriptors of {found.shape[1]} numbers in {output}")


def _check_matching_model(model: str, home: Path) -> None:
    """Check a model of pictures before anything heavy is imported."""
    from hpsearch.search.workspace import Workspace

    is_onnx = model.lower().endswith(".onnx") and Path(model).is_file()
    if model.lower() != ROOT_SIFT and not is_onnx:
        Workspace(home).check_model(model)


class GivenPatches(StrEnum):
    """Kind of patches that a model is evaluated on."""

    noisy = "noisy"
    clean = "clean"
    both = "both"


@app.command(rich_help_panel="Models")
def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Argument(
            help="hpsearch-base, models:/NAME@ALIAS, a folder of `train`, SEARCH/TRIAL, or a "
            "folder of descriptors DESC/SEQUENCE/VIEW.csv; several with --pairs."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Patches: mini, tiny, or the path of a store (default: mini)."),
    ] = None,
    split: SplitName = "auto",
    tasks: Annotated[Path | None, typer.Option(help="Folder of official task files.")] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Folder of picture sequences with homographies: points are detected in each "
            "picture, and nearest descriptors are scored, RootSIFT's too."
        ),
    ] = None,
    given: Annotated[
        GivenPatches, typer.Option("--input", help="Which patches the model is given.")
    ] = (GivenPatches.noisy),
    compare_with: Annotated[
        str | None,
        typer.Option(help="Another model; the difference is shown with its confidence interval."),
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also score normalized pixels, SIFT and RootSIFT.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for scores.json, figures and index.html."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON file for the scores of the first row.")
    ] = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Evaluate a model on the test sequences: verification, matching, retrieval.

    A store without levels (PhotoTour) gives the false positive rate at 95 % recall on its pairs.

    With --tasks, the benchmark's task lists are used; descriptors in the official layout then need
    no patches.

    Example: hpsearch evaluate models:/patch-descriptor@champion --data mini --output scored
    """
    if json_file is not None:
        check_target_file(json_file, "--json")
    if output is not None:
        check_target_folder(output, "--output")
    from hpsearch.search.workspace import Workspace

    names = (*(model or ()), *(() if compare_with is None else (compare_with,)))
    if pairs is not None:
        _evaluate_pairs(names, pairs, output, json_file, tracking_uri, home)
        return
    if len(model or ()) > 1:
        raise UserError("give one model, and another with --compare-with; --pairs takes several")
    for name in names:
        Workspace(home).check_model(name)

    from hpsearch.console.evaluation_output import print_evaluation
    from hpsearch.workflows.evaluate_models import (
        EvaluationRequest,
        evaluate_models,
        save_evaluation,
    )

    request = EvaluationRequest(
        models=names,
        data=data,
        split=split,
        tasks=tasks,
        given=("noisy", "clean") if given == GivenPatches.both else (given.value,),
        baselines=baselines,
    )
    found = evaluate_models(request, tracking_uri=tracking_uri, home=home)
    print_evaluation(found)
    if json_file is not None:
        first = next(iter({**found.rows, **found.on_pairs}.values()))
        write_target(json_file, json.dumps(first.to_dict()))
        out.print(f"\n{json_file}", soft_wrap=True)
    if output is not None:
        out.print(f"\n{save_evaluation(found, output)}", soft_wrap=True)


def _evaluate_pairs(
    models: tuple[str, ...],
    folder: Path,
    output: Path | None,
    json_file: Path | None,
    tracking_uri: str | None,
    home: Path,
) -> None:
    """Evaluate on points detected in each picture, and print means over all pairs."""
    if json_file is not None:
        raise UserError("--json is not for --pairs; give --output FOLDER, which has scores.json")
    for name in models:
        _check_matching_model(name, home)

    from hpsearch.workflows.evaluate_pairs import evaluate_pairs, pair_table, save_pairs

    models = tuple(dict.fromkeys((*models, ROOT_SIFT)))
    results = evaluate_pairs(
        models, folder, tracking_uri=tracking_uri, home=home, observer=console_observer()
    )
    print_plain(pair_table(results))
    if output is not None:
        save_pairs(results, folder, output, tracking_uri=tracking_uri, home=home)
        print_plain(f"{output}")


class PointDetector(StrEnum):
    """Detector of the points of photographs."""

    hpsearch = "hpsearch"
    opencv = "opencv"


@app.command("match", rich_help_panel="Models")
def match_command(
    first: Annotated[Path, typer.Argument(help="A picture.")],
    second: Annotated[Path, typer.Argument(help="Another picture of the same scene.")],
    model: Annotated[
        str,
        typer.Option(
            help="hpsearch-base, rootsift, models:/NAME@ALIAS, SEARCH/TRIAL, or an .onnx file."
        ),
    ] = BASE_MODEL,
    points: Annotated[
        int, typer.Option(min=1, max=20_000, help="Largest number of keypoints of a picture.")
    ] = 2000,
    ratio: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Largest ratio of nearest to second nearest distance."),
    ] = 0.9,
    homography: Annotated[
        Path | None, typer.Option(help="File of the true homography, to count correct matches.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG file of the matches.")
    ] = None,
    arrays: Annotated[
        Path | None,
        typer.Option(help=".npz file of keypoints, descriptors and matches, or .csv of matches."),
    ] = None,
    colmap: Annotated[
        Path | None, typer.Option(help="Folder for features and matches that COLMAP imports.")
    ] = None,
    detector: Annotated[
        PointDetector, typer.Option(help="Detector of the points; opencv is its SIFT.")
    ] = PointDetector.hpsearch,
    force: Force = False,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Match two photographs, and estimate the homography between them.

    Example: hpsearch match first.jpg second.jpg --output matches.png
    """
    from hpsearch.evaluation.descriptor_io import atomic_output, check_can_write

    for file, suffixes in ((output, (".png",)), (arrays, (".npz", ".csv")), (colmap, ())):
        if file is not None and suffixes and file.suffix not in suffixes:
            raise UserError(f"{file} must end in {' or '.join(suffixes)}; rename it")
        if file is not None:
            check_can_write(file, force=force)
    _check_matching_model(model, home)

    from hpsearch.workflows import match_images as matching

    found = matching.match_images(
        first, second, model=model, points=points, ratio=ratio, homography=homography,
        detector=detector.value, tracking_uri=tracking_uri, home=home,
    )  # fmt: skip
    print_plain(
        f"keypoints {len(found.first.descriptors):,} and {len(found.second.descriptors):,}, "
        f"matches {len(found.matches):,}, on one homography {found.inliers.sum():,}"
    )
    if found.correct is not None:
        print_plain(f"within 3 pixels of the true homography {found.correct.sum():,}")
    if output is not None:
        with atomic_output(output, force=force) as draft:
            matching.draw_matches(found).save(draft, format="PNG")
        print_plain(f"{output}")
    if arrays is not None:
        import numpy as np

        with atomic_output(arrays, force=force) as draft:
            if arrays.suffix == ".csv":
                draft.write_text(matching.match_table(found), "utf-8")
            else:
                with draft.open("wb") as file:
                    np.savez_compressed(file, **matching.match_arrays(found))  # type: ignore[arg-type]
        print_plain(f"{arrays}")
    if colmap is not None:
        with atomic_output(colmap, force=force) as draft:
            matching.save_colmap(found, draft, (first.name, second.name))
        print_plain(f"{colmap}")


@app.command(rich_help_panel="Models")
def export(
    model: Model,
    onnx: Annotated[Path, typer.Option("--onnx", help="The ONNX file to write.")],
    force: Force = False,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Export a model as ONNX, and compare both before the file is kept.

    The input is named patches, float32 (n, 32, 32) in gray levels 0…255 for any n, the output
    descriptors. The file is not kept if onnxruntime's descriptors differ by more than 1e-4.

    Example: hpsearch export models:/patch-descriptor@champion --onnx descriptor.onnx
    """
    from hpsearch.evaluation.descriptor_io import atomic_output, check_can_write
    from hpsearch.search.workspace import Workspace

    if onnx.suffix != ".onnx":
        raise UserError(f"{onnx} is not an ONNX file; give --onnx a name that ends in .onnx")
    check_can_write(onnx, force=force)
    Workspace(home).check_model(model)

    from hpsearch.models.onnx_export import MAX_PARITY_DIFFERENCE, export_onnx, require_onnx
    from hpsearch.promotion.model_evaluation import load_pipeline_by_ref

    require_onnx()
    pipeline = load_pipeline_by_ref(model, Workspace(home), uri=tracking_uri)
    with atomic_output(onnx, force=force) as draft:
        found = export_onnx(pipeline, draft, metadata={"hpsearch.model": model})
    out.print(
        f"{onnx}: onnxruntime's descriptors differ by at most {found:.1e} (allowed "
        f"{MAX_PARITY_DIFFERENCE:g})",
        soft_wrap=True,
    )
