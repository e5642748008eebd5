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
    """Write descriptors of patches with a model.

    The name says the form: .npy holds a row a patch (N×128, float32), .parquet also sequence,
    point and view, a folder the official benchmark's OUTPUT/SEQUENCE/VIEW.csv. Patches are read as
    they are described, so there may be more of them than memory.

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
    """Which patches a model is given."""

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
    """Score a model on the test sequences: verification, matching, retrieval.

    With --tasks, on the benchmark's own lists; descriptors in the official layout then need no
    patches.

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
    """Write a model as ONNX, and compare the two before the file is handed out.

    The file takes any number of patches at once: ``patches``, float32 (n, 32, 32) in grey levels
    0…255, to ``descriptors``. It is not kept if onnxruntime's descriptors differ by more than 1e-4.

    Example: hpsearch export models:/patch-descriptor@champion --onnx descriptor.onnx
    """
    from hpsearch.evaluation.descriptor_io import atomic_output, check_can_write
    from hpsearch.models.onnx_export import MAX_PARITY_DIFFERENCE, export_onnx, require_onnx

    if onnx.suffix != ".onnx":
        raise UserError(f"{onnx} is no ONNX file; give --onnx a name that ends in .onnx")
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
    """How the members' descriptors become one."""

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
    """Average several registered versions into one descriptor; score it on test, and register it.

    The members must have been trained and tested on the same patches. What a projection needs is
    learnt from their training sequences. The ensemble is compared with the champion of its name.

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
        raise UserError("--dimensions is for --combine concatenate; a mean has as many as a member")
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
    """Scores, and what became of it."""
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
        typer.Option(min=1, help="Number of configurations to train again (default: 3)."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings of each configuration, with new seeds (default: 3)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Make the model champion whatever the comparison says; its card says so.",
        ),
    ] = False,
    reevaluate: Annotated[
        bool,
        typer.Option("--reevaluate", help="Score the champion on this search's test patches."),
    ] = False,
    address: Cluster = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Train a search's best configurations again, score the best one on test, ask the champion.

    The best configuration is the one with the best mean over its seeds on validation; of its
    trainings the one with the median goes into the registry. It becomes champion only if it is
    better than the present one beyond doubt, else challenger. Interrupted, the same command goes
    on; given again, it trains nothing and does not look at test again.

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
    """Give the alias `champion` back to the champion before; given again, to the one before that.

    No version is changed or deleted.

    Example: hpsearch rollback
    """
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.model_registry import Registry, configure_mlflow_logging

    configure_mlflow_logging()
    registry = Registry(tracking=Workspace(home).tracking(tracking_uri), model=model)
    now, before = registry.rollback(version)
    if now == before:
        out.print(f"{model} version {now} is the champion already")
        return
    was = "there was none" if before is None else f"it was version {before}"
    out.print(f"{model} version {now} is champion again; {was}")
