"""``hpsearch ui``: the MLflow pages of this folder."""

from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, say

if TYPE_CHECKING:
    from hpsearch.tracking.server import Tracking


@app.command(rich_help_panel="Look")
def ui(
    name: Annotated[str | None, typer.Argument(help="A search to open; all, if unset.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Serve the MLflow UI on this machine only; Ctrl-C stops it.

    Example: hpsearch ui quickstart --port 5001
    """
    from hpsearch.cli.serving import refuse_used_port, serve
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.names import is_server
    from hpsearch.tracking.refusals import answering
    from hpsearch.tracking.registry import quieten_mlflow

    workspace = Workspace(home)
    folder = None if name is None else workspace.open(name, tracking_uri=tracking_uri)
    tracking = workspace.tracking(tracking_uri) if folder is None else folder.tracking()
    local = not is_server(tracking.uri)
    if local:
        refuse_used_port(port)
    quieten_mlflow()
    with answering(tracking.uri):
        pages = _pages(tracking, folder and folder.ledger.identity(), name)
    base = f"http://127.0.0.1:{port}" if local else tracking.shown.rstrip("/")
    lines = [f"{what:<24} {base}/{page}" for what, page in pages.items()]
    if local:
        serve(tracking, port, lines)
    else:
        say("\n".join(lines))


def _pages(tracking: "Tracking", identity: str | None, name: str | None) -> dict[str, str]:
    """What there is to see, and where.

    Raises:
        UserError: if MLflow does not know the search.
    """
    from hpsearch.tracking.names import view_name
    from hpsearch.tracking.pages import run_page, runs_page, search_run, trials_page, view_page

    if name is None:
        return {"all searches": runs_page(tracking), "their best trials": trials_page(tracking)}
    run, view = search_run(tracking, identity or "", name), view_name(identity or "")
    return {
        f"search {name}": run_page(tracking, run),
        "its trials as a table": view_page(tracking, view),
        "as charts": trials_page(tracking, search=name),
    }
