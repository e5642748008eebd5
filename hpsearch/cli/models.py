"""Commands for models: describe, evaluate, export."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hpsearch.atomic_files import check_target_file, check_target_folder, write_target
from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.cli.completion import complete_models
from hpsearch.cli.options import SplitName
from hpsearch.cli.pictures import BASE_MODEL, Force, describe_picture, evaluate_picture_pairs
from hpsearch.cli.search import console_observer
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError

Model = Annotated[
    str,
    typer.Argument(
        help="hpsearch-base, models:/NAME@champion, models:/NAME/VERSION, a folder of `train`, or "
        "SEARCH/TRIAL.",
        autocompletion=complete_models,
    ),
]


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
        describe_picture(model, Path(image), keypoints, output, force, tracking_uri, home)
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
            "folder of descriptors DESC/SEQUENCE/VIEW.csv; several with --pairs.",
            autocompletion=complete_models,
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
        evaluate_picture_pairs(names, pairs, output, json_file, tracking_uri, home)
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
    descriptors. The file is not kept if onnxruntime's descriptors differ by more than 1e-4, or
    than 1e-4 of the largest number in them where that is above 1.

    Example: hpsearch export models:/patch-descriptor@champion --onnx descriptor.onnx
    """
    from hpsearch.evaluation.descriptor_io import atomic_output, check_can_write
    from hpsearch.search.workspace import Workspace

    if onnx.suffix != ".onnx":
        raise UserError(f"{onnx} is not an ONNX file; give --onnx a name that ends in .onnx")
    check_can_write(onnx, force=force)
    Workspace(home).check_model(model)

    from hpsearch.models.onnx_export import (
        MAX_PARITY_DIFFERENCE,
        OnnxProgram,
        export_onnx,
        max_difference,
        require_onnx,
    )
    from hpsearch.promotion.model_evaluation import load_pipeline_by_ref

    require_onnx()
    pipeline = load_pipeline_by_ref(model, Workspace(home), uri=tracking_uri)
    with atomic_output(onnx, force=force) as draft:
        if isinstance(pipeline, OnnxProgram):
            draft.write_bytes(pipeline.content)
            found = max_difference(pipeline, draft)
        else:
            found = export_onnx(pipeline, draft, metadata={"hpsearch.model": model})
    out.print(
        f"{onnx}: onnxruntime's descriptors differ by at most {found:.1e} (allowed "
        f"{MAX_PARITY_DIFFERENCE:g})",
        soft_wrap=True,
    )
