"""Commands that show results: report, ui, sync."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.atomic_files import check_target_file, write_target
from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError

if TYPE_CHECKING:
    from hpsearch.search.search_context import SearchContext
    from hpsearch.tracking.connection import TrackingServer
    from hpsearch.tracking.mlflow_writer import SyncResult


@app.command(rich_help_panel="Results")
def report(
    name: Annotated[
        str | None, typer.Argument(help="Name of a search (default: the latest).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The HTML page (default: report.html in the search's folder, or NAME-report.html "
            "in the current one if the home cannot be written).",
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Print the leaderboard and write the report as one HTML page, also while the search runs.

    Example: hpsearch report quickstart --output report.html
    """
    from hpsearch.search.workspace import Workspace

    workspace = Workspace(home)
    known = workspace.searches()
    if name is None and not known:
        raise UserError(f"there is no search in {home}; start one with `hpsearch search SPACE`")
    context = workspace.open(known[-1] if name is None else name)
    output = _report_target(context) if output is None else output
    check_target_file(output, "--output")

    from hpsearch.console.search_output import print_scores, print_trials
    from hpsearch.promotion.final_evaluation import load_scores
    from hpsearch.workflows.publish_figures import draw_search_figures, render_search_report

    print_trials(context)
    scores = load_scores(context)
    if scores:
        print_scores(scores)
    write_target(output, render_search_report(context, draw_search_figures(context)))
    out.print(f"\n{output}", soft_wrap=True)


def _report_target(context: "SearchContext") -> Path:
    """Path of the report page: in the search's folder, else in the current one."""
    page = context.paths.folder / "report.html"
    try:
        check_target_file(page, "--output")
    except UserError:
        return Path(f"{context.name}-report.html")
    return page


@app.command(rich_help_panel="Results")
def ui(
    name: Annotated[
        str | None, typer.Argument(help="Name of a search to open (default: all).")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")] = 5000,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Serve the MLflow UI on this machine only; Ctrl-C stops it.

    Example: hpsearch ui quickstart --port 5001
    """
    from hpsearch.cli.mlflow_ui import check_port_free, serve_ui
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.mlflow_errors import translate_all_errors
    from hpsearch.tracking.mlflow_tags import is_server

    workspace = Workspace(home)
    context = None if name is None else workspace.open(name, tracking_uri=tracking_uri)
    connect = context.tracking if context else partial(workspace.tracking, tracking_uri)
    try:
        tracking, notes = _ui_server(connect)
    except UserError as error:
        if context is None or error.code != "no-mlflow-database":
            raise
        raise UserError(
            f"MLflow has no runs of search {name!r} yet; send them with "
            f"`{context.command('sync')}`",
            code="no-mlflow-run",
        ) from error
    local = not is_server(tracking.uri)
    if local:
        check_port_free(port)

    from hpsearch.tracking.model_registry import configure_mlflow_logging

    configure_mlflow_logging()
    with translate_all_errors(tracking.uri):
        pages = _ui_links(tracking, context and context.event_log.search_id(), name)
    base = f"http://127.0.0.1:{port}" if local else tracking.display_uri.rstrip("/")
    lines = [f"{what:<24} {base}/{page}" for what, page in pages.items()]
    if local:
        serve_ui(tracking, port, [*lines, *notes])
    else:
        print_plain("\n".join(lines))


def _ui_server(connect: Callable[..., "TrackingServer"]) -> tuple["TrackingServer", list[str]]:
    """MLflow for the UI, which also writes where it can, and notes for the user."""
    shown = connect(read_only=True)
    if not shown.is_copy:
        return shown, []
    try:
        return connect(), []
    except UserError:
        return shown, ["The home cannot be written, so changes made in the UI are not kept."]


def _ui_links(
    tracking: "TrackingServer", search_id: str | None, name: str | None
) -> dict[str, str]:
    """Links to the views of a search, or of all searches.

    Raises:
        UserError: if MLflow has no run of the search.
    """
    from hpsearch.tracking.mlflow_links import (
        find_search_run,
        run_url,
        runs_url,
        saved_view_url,
        trials_url,
    )
    from hpsearch.tracking.mlflow_tags import saved_view_name

    if name is None:
        return {"all searches": runs_url(tracking), "their best trials": trials_url(tracking)}
    run, view = find_search_run(tracking, search_id or "", name), saved_view_name(search_id or "")
    return {
        f"search {name}": run_url(tracking, run),
        "its trials as a table": saved_view_url(tracking, view),
        "as charts": trials_url(tracking, search=name),
    }


@app.command(rich_help_panel="Results")
def sync(
    name: Annotated[str, typer.Argument(help="Name of the search.")],
    pictures: Annotated[
        bool, typer.Option(help="Also send figures, the report and descriptions.")
    ] = True,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Rebuild a search's study and its MLflow runs from its event log; existing data is kept.

    For a study that was lost, and a server that was down, has lost data, or is new to the search.
    Idempotent.

    Example: hpsearch sync quickstart --tracking-uri http://HOST:5000
    """
    from hpsearch.console.progress_bars import progress_bar
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.mlflow_errors import translate_all_errors

    Workspace(home).check_writable()
    context = Workspace(home).open(name, tracking_uri=tracking_uri)
    if not context.event_log.events():
        raise UserError(
            f"search {name!r} is empty; start it again with `hpsearch search`",
            code="empty-search",
        )

    from hpsearch.execution.study_restore import restore_study

    try:
        restored = restore_study(context)
        if restored:
            out.print(f"study: {restored} trials restored from the event log")
    except UserError as error:  # MLflow's runs are made nevertheless
        if error.code != "study-not-restorable":
            raise
        print_plain(f"study: not restored; {error}")

    from hpsearch.tracking.model_registry import configure_mlflow_logging
    from hpsearch.workflows.publish_figures import publish_figures

    configure_mlflow_logging()
    mlflow_sync = context.mlflow_sync()
    with translate_all_errors(mlflow_sync.tracking.uri):
        with progress_bar("sending trials") as advance:
            delivery = mlflow_sync.sync(full=True, progress=lambda i, n: advance(i, n, ""))
        out.print(f"{mlflow_sync.tracking.display_uri}: {_sync_summary(delivery)}", soft_wrap=True)
        if pictures:
            with progress_bar("drawing") as advance:
                count = publish_figures(
                    context, mlflow_sync, progress=lambda i, n: advance(i, n, "")
                )
            out.print(f"{count} figures and pages")
    print_plain(f"view them with:  {context.command('ui')}")


def _sync_summary(result: "SyncResult") -> str:
    """Summary of a synchronization; a report is one value of every metric."""
    return (
        f"{result.runs} runs ({result.created} new), "
        f"{result.sent} reports sent, {result.already_present} already present"
    )
