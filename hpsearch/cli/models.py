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
    patches: Annotated[
        str,
        typer.Argument(
            help="mini, tiny, a patch store, a folder of strips (SEQUENCE/ref.png …), a folder of "
            "patches (PNG, 32×32 or 65×65), or a .npy file (N×32×32)."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="A .npy file, a .parquet file, or a folder for the official layout.",
        ),
    ],
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

    Example: hpsearch describe models:/patch-descriptor@champion mini --output descriptors
    """
    from hpsearch.evaluation.descriptor_io import check_can_write
    from hpsearch.search.workspace import Workspace

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


class GivenPatches(StrEnum):
    """Kind of patches that a model is evaluated on."""

    noisy = "noisy"
    clean = "clean"
    both = "both"


@app.command(rich_help_panel="Models")
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="hpsearch-base, models:/NAME@ALIAS, a folder of `train`, SEARCH/TRIAL, or a "
            "folder of descriptors DESC/SEQUENCE/VIEW.csv."
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
            "picture, and nearest descriptors are scored."
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

    names = tuple(name for name in (model, compare_with) if name is not None)
    for name in names:
        if pairs is None or name != "rootsift":
            Workspace(home).check_model(name)
    if pairs is not None:
        _evaluate_pairs((*names, *(["rootsift"] if baselines else [])), pairs, tracking_uri, home)
        return

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
    models: tuple[str, ...], folder: Path, tracking_uri: str | None, home: Path
) -> None:
    """Evaluate on points detected in each picture, and print means over all pairs."""
    from hpsearch.workflows.evaluate_pairs import evaluate_pairs, pair_table

    if not models:
        raise UserError("give a model to evaluate on --pairs, or --baselines")
    results = evaluate_pairs(
        models, folder, tracking_uri=tracking_uri, home=home, observer=console_observer()
    )
    print_plain(pair_table(results))


@app.command("match", rich_help_panel="Models")
def match_command(
    first: Annotated[Path, typer.Argument(help="A picture.")],
    second: Annotated[Path, typer.Argument(help="Another picture of the same scene.")],
    model: Annotated[
        str, typer.Option(help="hpsearch-base, rootsift, models:/NAME@ALIAS, or SEARCH/TRIAL.")
    ] = "hpsearch-base",
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
        Path | None, typer.Option(help=".npz file of keypoints, descriptors and matches.")
    ] = None,
    force: Force = False,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Match two photographs, and estimate the homography between them.

    Example: hpsearch match first.jpg second.jpg --output matches.png
    """
    from hpsearch.evaluation.descriptor_io import atomic_output, check_can_write
    from hpsearch.search.workspace import Workspace

    for file, suffix in ((output, ".png"), (arrays, ".npz")):
        if file is not None and file.suffix != suffix:
            raise UserError(f"{file} must end in {suffix}; rename it")
        if file is not None:
            check_can_write(file, force=force)
    if model != ROOT_SIFT:
        Workspace(home).check_model(model)

    from hpsearch.workflows import match_images as matching

    found = matching.match_images(
        first, second, model=model, points=points, ratio=ratio, homography=homography,
        tracking_uri=tracking_uri, home=home,
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

        with atomic_output(arrays, force=force) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **matching.match_arrays(found))  # type: ignore[arg-type]
        print_plain(f"{arrays}")


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
