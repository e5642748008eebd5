"""``hpsearch promote``: whether a search's best configuration becomes champion."""

from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app
from hpsearch.cli.resume import Cluster


@app.command(rich_help_panel="Models")
def promote(
    name: Annotated[str, typer.Argument(help="Name of the search.")],
    top: Annotated[
        int | None, typer.Option(min=1, help="Configurations to train again; 3, if unset.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Trainings of each, with new seeds; 3, if unset.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Make it champion anyway; that is written down.")
    ] = False,
    reevaluate: Annotated[
        bool,
        typer.Option("--reevaluate", help="Score the champion on this search's test patches."),
    ] = False,
    address: Cluster = None,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Train a search's best configurations again, score the best one on test, ask the champion.

    The best configuration is the one with the best mean over its seeds on validation; of its
    trainings the one with the median goes into the registry. It becomes champion only if it is
    better than the present one beyond doubt, else challenger. Interrupted, the same command goes
    on; given again, it trains nothing and does not look at test again.

    Example: hpsearch promote quickstart --dry-run
    """
    from hpsearch.cli.promoting import promote_search
    from hpsearch.cli.promotion_words import show_plan
    from hpsearch.cli.resuming import moved
    from hpsearch.promotion.promotion import refuse_promotion
    from hpsearch.promotion.promotion_folder import prepare
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.registry import quieten_mlflow

    quieten_mlflow()
    folder = Workspace(home).open(name, tracking_uri=tracking_uri)
    refuse_promotion(folder)
    there = folder if dry_run else moved(folder, address)
    promotion = prepare(there, top=top, seeds=seeds)
    show_plan(promotion, dry_run=dry_run)
    if not dry_run:
        promote_search(promotion, force=force, reevaluate=reevaluate)
