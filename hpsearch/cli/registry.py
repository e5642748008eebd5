"""Commands for the model registry: ensemble, promote, rollback."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.cli.completion import complete_searches, complete_versions
from hpsearch.cli.options import Notify, notifiers
from hpsearch.cli.search import Cluster, console_observer
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import EXIT_INTERRUPTED, UserError

if TYPE_CHECKING:
    from hpsearch.promotion.ensemble import CombinedModel, RegistrationResult


class CombineMethod(StrEnum):
    """Method that combines the members' descriptors."""

    mean = "mean"
    concatenate = "concatenate"


@app.command(rich_help_panel="Models")
def ensemble(
    members: Annotated[
        list[str],
        typer.Argument(
            help="Registered versions, at least two: NAME@3, NAME@champion …",
            autocompletion=complete_versions,
        ),
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
    from hpsearch.search.workspace import Workspace
    from hpsearch.untrusted import check_name

    if dimensions is not None and combine is CombineMethod.mean:
        raise UserError(
            "--dimensions is for --combine concatenate; a mean has the dimension of a member"
        )
    check_name(name, "a model")
    workspace = Workspace(home)
    workspace.check_writable()
    tracking = workspace.tracking(tracking_uri)
    tracking.check_exists(members[0])
    tracking.check_experiment()

    from hpsearch.promotion.ensemble import (
        combine_models,
        common_dataset,
        load_members,
        register_ensemble,
    )
    from hpsearch.promotion.score_cache import ScoreCache
    from hpsearch.tracking.model_registry import Registry, configure_mlflow_logging

    configure_mlflow_logging()
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
    alias = f"as {done.decision.alias}" if done.decision.alias else "without an alias"
    print_plain(f"Registered {name} version {done.version} {alias}: {combined.names}")
    print_plain(f"  {done.decision.reason}")


@app.command(rich_help_panel="Models")
def promote(
    name: Annotated[
        str, typer.Argument(help="Name of the search.", autocompletion=complete_searches)
    ],
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Number of configurations to retrain (default: 3)."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings of each configuration, with new seeds (default: 3)."),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=1, help="Patches seen by each training (default: as in the search)."),
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(min=0.01, help="Width of the descriptor network (default: as in the search)."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Other patches to train, validate and test on (default: the search's)."),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            help="Limit that a champion must keep, such as 'us_per_patch < 20' or 'task_drop < "
            "0.01' (no task worse than the champion's by 0.01); may be repeated."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", is_eager=True, help="Print the plan without changing anything."),
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
    notify: Notify = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Retrain a search's best configurations, evaluate the best, compare with the champion.

    The best configuration has the best mean over seeds on validation; its training with the median
    objective is registered. It becomes champion only if it is clearly better than the present one,
    else challenger. After an interruption, the same command resumes; after the end, it trains
    nothing and does not evaluate on test again. With another budget, width or data, the search
    chooses among small networks and the promotion trains the best ones large; the rank correlation
    of both is printed.

    Example: hpsearch promote quickstart --dry-run
    """
    from hpsearch.console.promotion_output import print_plan, print_promotion
    from hpsearch.search.workspace import Workspace
    from hpsearch.workflows.promote_search import PromotionInterrupted, plan_promotion
    from hpsearch.workflows.promote_search import promote as run_promotion

    callbacks = notifiers(notify, None)
    if not dry_run:
        Workspace(home).check_writable()
    plan = plan_promotion(
        name,
        top=top,
        seeds=seeds,
        budget=budget,
        width=width,
        data=data,
        gates=gate or (),
        address=None if dry_run else address,
        tracking_uri=tracking_uri,
        home=home,
        observer=console_observer(),
    )

    from hpsearch.tracking.model_registry import configure_mlflow_logging

    configure_mlflow_logging()
    print_plan(plan, dry_run=dry_run, reevaluate=reevaluate)
    if dry_run:
        return
    try:
        result = run_promotion(
            plan, force=force, reevaluate=reevaluate, observer=console_observer()
        )
    except PromotionInterrupted:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    print_promotion(result)
    for callback in callbacks:
        callback.on_search_start(plan.parent)
        callback.on_registration(result)
        callback.flush()


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

    tracking = Workspace(home).tracking(tracking_uri)
    tracking.check_exists(model)

    from hpsearch.tracking.model_registry import Registry, configure_mlflow_logging

    configure_mlflow_logging()
    registry = Registry(tracking=tracking, model=model)
    now, before = registry.rollback(version)
    if now == before:
        out.print(f"{model} version {now} is already the champion")
        return
    was = "there was none" if before is None else f"it was version {before}"
    out.print(f"{model} version {now} is champion again; {was}")
