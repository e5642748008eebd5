"""Commands that show results: report, ui, sync."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.console.output import out, say
from hpsearch.defaults import HOME
from hpsearch.errors import UserError

if TYPE_CHECKING:
    from hpsearch.tracking.connection import Tracking
    from hpsearch.tracking.mlflow_writer import Delivery


@app.command(rich_help_panel="Look")
def report(
    name: Annotated[str | None, typer.Argument(help="A search; the latest, if unset.")] = None,
    to: Annotated[Path | None, typer.Option(help="The page; in the search's folder.")] = None,
    home: Home = HOME,
) -> None:
    """Print the leaderboard and write the report as one HTML page, also while the search runs.

    Example: hpsearch report quickstart --to report.html
    """
    from hpsearch.console.search_output import print_scores, print_trials
    from hpsearch.promotion.final_evaluation import load_scores
    from hpsearch.search.workspace import Workspace
    from hpsearch.workflows.publish_figures import page, search_figures

    workspace = Workspace(home)
    known = workspace.searches()
    if name is None and not known:
        raise UserError(f"there is no search in {home}; begin with `hpsearch search SPACE`")
    folder = workspace.open(name or known[-1])
    print_trials(folder)
    scores = load_scores(folder)
    if scores:
        print_scores(scores)
    to = to or folder.path / "report.html"
    to.write_text(page(folder, search_figures(folder)), encoding="utf-8")
    out.print(f"\n{to}", soft_wrap=True)


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
    from hpsearch.cli.mlflow_ui import refuse_used_port, serve
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.connection import answering
    from hpsearch.tracking.mlflow_tags import is_server
    from hpsearch.tracking.model_registry import quieten_mlflow

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
    from hpsearch.tracking.mlflow_links import (
        run_page,
        runs_page,
        search_run,
        trials_page,
        view_page,
    )
    from hpsearch.tracking.mlflow_tags import view_name

    if name is None:
        return {"all searches": runs_page(tracking), "their best trials": trials_page(tracking)}
    run, view = search_run(tracking, identity or "", name), view_name(identity or "")
    return {
        f"search {name}": run_page(tracking, run),
        "its trials as a table": view_page(tracking, view),
        "as charts": trials_page(tracking, search=name),
    }


@app.command(rich_help_panel="Look")
def sync(
    name: Annotated[str, typer.Argument(help="Name of the search.")],
    pictures: Annotated[bool, typer.Option(help="Also figures, report and descriptions.")] = True,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Rebuild a search's MLflow runs from its folder; what is there already is left alone.

    For a server that was down, has lost something, or never knew the search. Twice is as once.

    Example: hpsearch sync quickstart --tracking-uri http://HOST:5000
    """
    from hpsearch.console.progress_bars import progress_bar
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.connection import answering
    from hpsearch.tracking.model_registry import quieten_mlflow
    from hpsearch.workflows.publish_figures import publish_figures

    folder = Workspace(home).open(name, tracking_uri=tracking_uri)
    if not folder.ledger.events():
        raise UserError(f"search {name!r} is empty; begin it again with `hpsearch search`")
    quieten_mlflow()
    publisher = folder.publisher()
    with answering(publisher.tracking.uri):
        with progress_bar("sending trials") as advance:
            delivery = publisher.sync(again=True, progress=lambda i, n: advance(i, n, ""))
        out.print(f"{publisher.tracking.shown}: {_words(delivery)}", soft_wrap=True)
        if pictures:
            with progress_bar("drawing") as advance:
                count = publish_figures(folder, publisher, progress=lambda i, n: advance(i, n, ""))
            out.print(f"{count} figures and pages")
    say(f"look at them with:  {folder.command('ui')}")


def _words(delivery: "Delivery") -> str:
    """A report is one point of every metric."""
    return (
        f"{delivery.runs} runs ({delivery.created} new), "
        f"{delivery.sent} reports sent, {delivery.there} already there"
    )
