"""Commands for models: describe, evaluate, export, ensemble, promote, rollback."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.cli.options import SplitName
from hpsearch.cli.search import Cluster, console_observer
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import EXIT_INTERRUPTED, UserError

if TYPE_CHECKING:
    from hpsearch.promotion.ensemble import CombinedModel, RegistrationResult

Model = Annotated[
    str,
    typer.Argument(
        help="models:/NAME@champion, models:/NAME/VERSION, a folder of `train`, or SEARCH/TRIAL."
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

    check_can_write(output, force=force)

    from hpsearch.workflows.describe_patches import describe_patches

    done = describe_patches(
        model,
        patches,
        output,
        clean=clean,
        force=force,
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
            help="models:/NAME@ALIAS, a folder of `train`, SEARCH/TRIAL, or a folder of "
            "descriptors DESC/SEQUENCE/VIEW.csv."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Patches: mini, tiny, or the path of a store (default: mini)."),
    ] = None,
    split: SplitName = "auto",
    tasks: Annotated[Path | None, typer.Option(help="Folder of official task files.")] = None,
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

    With --tasks, the benchmark's task lists are used; descriptors in the official layout then need
    no patches.

    Example: hpsearch evaluate models:/patch-descriptor@champion --data mini --output scored
    """
    from hpsearch.console.evaluation_output import print_evaluation
    from hpsearch.workflows.evaluate_models import (
        EvaluationRequest,
        evaluate_models,
        save_evaluation,
    )

    request = EvaluationRequest(
        models=tuple(name for name in (model, compare_with) if name is not None),
        data=data,
        split=split,
        tasks=tasks,
        given=("noisy", "clean") if given == GivenPatches.both else (given.value,),
        baselines=baselines,
    )
    found = evaluate_models(request, tracking_uri=tracking_uri, home=home)
    print_evaluation(found)
    if json_file is not None:
        json_file.write_text(json.dumps(next(iter(found.rows.values())).to_dict()))
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

    The input is ``patches``, float32 (n, 32, 32) in gray levels 0…255 for any n, the output
    ``descriptors``. The file is not kept if onnxruntime's descriptors differ by more than 1e-4.

    Example: hpsearch export models:/patch-descriptor@champion --onnx descriptor.onnx
    """
    from hpsearch.evaluation.descriptor_io import atomic_output, check_can_write
    from hpsearch.models.onnx_export import MAX_PARITY_DIFFERENCE, export_onnx, require_onnx

    if onnx.suffix != ".onnx":
        raise UserError(f"{onnx} is not an ONNX file; give --onnx a name that ends in .onnx")
    check_can_write(onnx, force=force)
    require_onnx()

    from hpsearch.promotion.model_evaluation import load_pipeline_by_ref
    from hpsearch.search.workspace import Workspace

    pipeline = load_pipeline_by_ref(model, Workspace(home), uri=tracking_uri)
    with atomic_output(onnx, force=force) as draft:
        found = export_onnx(pipeline, draft, metadata={"hpsearch.model": model})
    out.print(
        f"{onnx}: onnxruntime's descriptors differ by at most {found:.1e} (allowed "
        f"{MAX_PARITY_DIFFERENCE:g})",
        soft_wrap=True,
    )


class CombineMethod(StrEnum):
    """Method that combines the members' descriptors."""

    mean = "mean"
    concatenate = "concatenate"


@app.command(rich_help_panel="Models")
def ensemble(
    members: Annotated[
        list[str], typer.Argument(help="Registered versions, at least two: NAME@3, NAME@champion …")
    ],
    name: Annotated[str, typer.Option(help="Name that the ensemble is registered under.")],
    combine: Annotated[
        CombineMethod,
        typer.Option(help="Concatenate and project (PCA), or average the members' descriptors."),
    ] = CombineMethod.concatenate,
    dimensions: Annotated[
        int | None,
        typer.Option(min=2, help="Length of a projected descriptor (default: a member's)."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Patch set of the members (default: that of their search).")
    ] = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Combine registered versions into one descriptor, evaluate it on test, and register it.

    The members must have been trained and evaluated on the same patches. A projection is fitted to
    their training sequences. The ensemble is compared with the champion of its name.

    Example: hpsearch ensemble patch-descriptor@1 patch-descriptor@3 --name two-of-them
    """
    from hpsearch.promotion.ensemble import (
        combine_models,
        common_dataset,
        load_members,
        register_ensemble,
    )
    from hpsearch.promotion.score_cache import ScoreCache
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.model_registry import Registry, configure_mlflow_logging
    from hpsearch.untrusted import check_name

    if dimensions is not None and combine is CombineMethod.mean:
        raise UserError(
            "--dimensions is for --combine concatenate; a mean has the dimension of a member"
        )
    check_name(name, "a model")
    configure_mlflow_logging()
    workspace = Workspace(home)
    tracking = workspace.tracking(tracking_uri)
    found = load_members(members, tracking)
    store, split = common_dataset(found, workspace, data)
    union = combine_models(
        found, combine.value, store.part(split, "train"), descriptor_dim=dimensions
    )
    score_cache = ScoreCache(workspace.home, store, split)
    print_ensemble(
        union, register_ensemble(union, Registry(tracking=tracking, model=name), score_cache), name
    )


def print_ensemble(combined: "CombinedModel", done: "RegistrationResult", name: str) -> None:
    """Print scores and registration of an ensemble."""
    scores = done.scores
    if combined.explained_variance is not None:
        print_plain(
            f"the projection keeps {combined.explained_variance:.1%} of the variance on training "
            "patches"
        )
    print_plain(
        f"on test: verification {scores.verification:.3f}, matching {scores.matching:.3f}, "
        f"retrieval {scores.retrieval:.3f}, mean mAP {scores.mean:.4f}"
    )
    print_plain(f"Registered {name} version {done.version} as {done.alias}: {combined.names}")
    print_plain(f"  {done.decision.reason}")


@app.command(rich_help_panel="Models")
def promote(
    name: Annotated[str, typer.Argument(help="Name of the search.")],
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Number of configurations to retrain (default: 3)."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings of each configuration, with new seeds (default: 3)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan without changing anything.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Make the model champion whatever the comparison shows; its card records it.",
        ),
    ] = False,
    reevaluate: Annotated[
        bool,
        typer.Option("--reevaluate", help="Evaluate the champion on this search's test patches."),
    ] = False,
    address: Cluster = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Retrain a search's best configurations, evaluate the best, compare with the champion.

    The best configuration has the best mean over seeds on validation; its training with the median
    objective is registered. It becomes champion only if it is clearly better than the present one,
    else challenger. After an interruption, the same command resumes; after the end, it trains
    nothing and does not evaluate on test again.

    Example: hpsearch promote quickstart --dry-run
    """
    from hpsearch.console.promotion_output import print_plan, print_promotion
    from hpsearch.tracking.model_registry import configure_mlflow_logging
    from hpsearch.workflows.promote_search import PromotionInterrupted, plan_promotion
    from hpsearch.workflows.promote_search import promote as run_promotion

    configure_mlflow_logging()
    plan = plan_promotion(
        name,
        top=top,
        seeds=seeds,
        address=None if dry_run else address,
        tracking_uri=tracking_uri,
        home=home,
        observer=console_observer(),
    )
    print_plan(plan, dry_run=dry_run)
    if dry_run:
        return
    try:
        result = run_promotion(
            plan, force=force, reevaluate=reevaluate, observer=console_observer()
        )
    except PromotionInterrupted:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_promotion(result)


@app.command(rich_help_panel="Models")
def rollback(
    model: Annotated[str, typer.Argument(help="Name in the registry.")] = "patch-descriptor",
    version: Annotated[
        int | None,
        typer.Option(min=1, help="Version to make champion (default: the champion before)."),
    ] = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Restore the alias `champion` to the previous champion, and to earlier ones if repeated.

    No version is changed or deleted.

    Example: hpsearch rollback
    """
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.model_registry import Registry, configure_mlflow_logging

    configure_mlflow_logging()
    registry = Registry(tracking=Workspace(home).tracking(tracking_uri), model=model)
    now, before = registry.rollback(version)
    if now == before:
        out.print(f"{model} version {now} is already the champion")
        return
    was = "there was none" if before is None else f"it was version {before}"
    out.print(f"{model} version {now} is champion again; {was}")
