"""``hpsearch rollback``: the champion before is champion again."""

from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out


@app.command(rich_help_panel="Models")
def rollback(
    model: Annotated[str, typer.Argument(help="Name in the registry.")] = "patch-descriptor",
    to: Annotated[
        int | None, typer.Option(min=1, help="This version; else the champion before.")
    ] = None,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Give the alias `champion` back to the champion before; given again, to the one before that.

    No version is changed or deleted.

    Example: hpsearch rollback
    """
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.registry import Registry, quieten_mlflow

    quieten_mlflow()
    registry = Registry(tracking=Workspace(home).tracking(tracking_uri), model=model)
    now, before = registry.rollback(to)
    if now == before:
        out.print(f"{model} version {now} is the champion already")
        return
    was = "there was none" if before is None else f"it was version {before}"
    out.print(f"{model} version {now} is champion again; {was}")
