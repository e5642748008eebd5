"""``hpsearch promote``: move the champion's alias to a search's model, if it is better."""

from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, app, out


@app.command(rich_help_panel="Models")
def promote(
    name: Annotated[str, typer.Argument(help="Name of a finished search.")], home: Home = HOME
) -> None:
    """Compare a search's winner with the champion on test, and move the alias only if it is better.

    Example: hpsearch promote quickstart
    """
    from hpsearch.search.winner import best_run
    from hpsearch.search.registering import register_winner
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.registry import CHAMPION, Registry, quieten_mlflow

    quieten_mlflow()
    folder = Workspace(home).open(name)
    registry = Registry(tracking=folder.tracking(), model=folder.record.model)
    version = registry.version_of(name)
    if version is None:
        outcome = register_winner(folder, best_run(folder.runs(), folder.search().objective))
        out.print(f"registered {outcome.model} version {outcome.version}: {outcome.alias}")
        out.print(outcome.decision.reason, soft_wrap=True)
        return
    champion = registry.champion()
    if champion is not None and champion.version == version.version:
        out.print(f"{registry.model} version {version.version} is the champion already")
        return
    scores = registry.scores(version)
    decision = decide_against_champion(registry, scores, folder.record.fingerprint)
    alias = registry.apply(int(version.version), decision)
    verb = "is now" if alias == CHAMPION else "stays"
    out.print(f"{registry.model} version {version.version} {verb} {alias}: {decision.reason}")
