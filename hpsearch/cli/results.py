"""Commands that show results: report, ui, sync."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.atomic_files import check_target_file, write_target
from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.cli.completion import complete_searches
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.locations import home_address
from hpsearch.object_storage.lease import is_mirror

if TYPE_CHECKING:
    from hpsearch.reporting.leaderboard import Row
    from hpsearch.search.search_context import SearchContext
    from hpsearch.tracking.connection import TrackingServer
    from hpsearch.tracking.mlflow_writer import SyncResult

STDOUT = Path("-")
"""Target that stands for the standard output."""
PAGE_REFRESH_S = 15
"""Seconds after which the page of a running search loads itself again."""


@app.command(rich_help_panel="Results")
def report(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of a search (default: the latest).", autocompletion=complete_searches
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The HTML page (default: report.html in the search's folder, or NAME-report.html "
            "in the current one if the home cannot be written, or is in object storage).",
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="Also write the trials as CSV; - prints nothing else."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Also write the trials as JSON; - prints nothing else."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Print all trials, not the best 12 alone.")
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="Print and export only trials with this, such as loss=hardnet or 'lr<0.01'; "
            "repeat it for more conditions.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="Column to sort by, with - in front for the largest first."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Write the page again as trials report, until the end."),
    ] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Print the leaderboard and write the report as one HTML page, also while the search runs.

    While the search runs, the page loads itself again in the browser. A column is one of the
    exported table: rank, trial, status, objective, seen, seconds, a metric or a setting.

    Example: hpsearch report quickstart --filter loss=hardnet --sort -val/matching --csv trials.csv
    """
    context = _open_latest(home, name)
    output = _report_target(context) if output is None else output
    exports = {"--csv": csv, "--json": json}
    _check_targets({"--output": output, **exports}, follow=follow)

    from hpsearch.reporting.leaderboard import leaderboard
    from hpsearch.reporting.trial_table import select_rows

    every_row = leaderboard(context.runs, direction=context.objective.direction)
    rows = select_rows(every_row, conditions=where or (), sort=sort)
    if _export(context, rows, exports):
        return

    from hpsearch.console.search_output import print_scores, print_trials
    from hpsearch.promotion.final_evaluation import load_scores

    print_trials(context, rows=rows, limit=len(rows) if every else None)
    scores = load_scores(context)
    if scores:
        print_scores(scores)
    _write_pages(context, output, follow=follow)
    out.print(f"\n{output}", soft_wrap=True)


def _open_latest(home: Path, name: str | None) -> "SearchContext":
    """Search of this name, or the latest."""
    from hpsearch.search.workspace import Workspace

    workspace = Workspace(home)
    known = workspace.searches()
    if name is None and not known:
        raise UserError(
            f"there is no search in {home_address(home)}; start one with `hpsearch search SPACE`"
        )
    return workspace.open(known[-1] if name is None else name)


def _check_targets(targets: dict[str, Path | None], *, follow: bool) -> None:
    """Refuse a file that cannot be written, two tables on one output, and one that is followed."""
    printed = [option for option, path in targets.items() if path == STDOUT]
    if len(printed) > 1 or (printed and (follow or printed == ["--output"])):
        raise UserError(
            f"{' and '.join(printed)} cannot print here; give a file, or - for one table alone, "
            "without --follow",
            code="one-output",
        )
    for option, path in targets.items():
        if path is not None and path != STDOUT:
            check_target_file(path, option)


def _export(
    context: "SearchContext", rows: "Sequence[Row]", exports: dict[str, Path | None]
) -> bool:
    """Write the tables that were asked for; return whether one was printed instead."""
    from hpsearch.reporting.trial_table import to_csv, to_json_document, trial_records
    from hpsearch.workflows.publish_figures import search_facts

    for option, path in exports.items():
        if path is None:
            continue
        if option == "--csv":
            text = to_csv(trial_records(rows))
        else:
            text = to_json_document(context.name, rows, search_facts(context)) + "\n"
        if path == STDOUT:
            print_plain(text.rstrip("\n"))
            return True
        write_target(path, text)
    return False


def _write_pages(context: "SearchContext", output: Path, *, follow: bool) -> None:
    """Write the page; with ``follow`` again whenever the event log has grown, until the end."""
    from hpsearch.workflows.publish_figures import draw_search_figures, render_search_report
    from hpsearch.workflows.steer_search import is_running

    written = -1
    while True:
        running, size = is_running(context), context.paths.event_log.stat().st_size
        if size != written or not running:
            refresh = PAGE_REFRESH_S if running else 0
            page = render_search_report(
                context, draw_search_figures(context), refresh_seconds=refresh
            )
            write_target(output, page)
            written = size
        if not (follow and running):
            return
        time.sleep(PAGE_REFRESH_S)


def _report_target(context: "SearchContext") -> Path:
    """Path of the report page: in the search's folder, else in the current one."""
    page = context.paths.folder / "report.html"
    if is_mirror(context.home):
        return Path(f"{context.name}-report.html")
    try:
        check_target_file(page, "--output")
    except UserError:
        return Path(f"{context.name}-report.html")
    return page


@app.command(rich_help_panel="Results")
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Two or more searches.", metavar="SEARCH...", autocompletion=complete_searches
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write one HTML page with figures.")
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Compare searches: best value over cost, distribution, importance, and what they share.

    Searches that differ in the seed alone are drawn as their mean, three with a 95 % interval.

    Example: hpsearch compare quickstart quickstart-2 --output comparison.html
    """
    if output is not None:
        check_target_file(output, "--output")

    from hpsearch.reporting.text_tables import to_text
    from hpsearch.workflows.compare_searches import compare_searches

    found = compare_searches(names, home=home)
    for table in (found.results, found.terms, found.importance):
        if table.rows:
            print_plain(to_text(table) + "\n")
    for sentence in found.remarks:
        print_plain(sentence)
    if output is not None:
        write_target(output, found.page())
        print_plain(f"wrote {output}")


@app.command(rich_help_panel="Results")
def ui(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of a search to open (default: all).", autocompletion=complete_searches
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")] = 5000,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Serve MLflow's UI, and Optuna's of one search, on this machine only; Ctrl-C stops it.

    Example: hpsearch ui quickstart --port 5001
    """
    from hpsearch.cli.mlflow_ui import check_port_free, serve_ui, ui_links
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
        pages = ui_links(tracking, context and context.event_log.search_id(), name)
    base = f"http://127.0.0.1:{port}" if local else tracking.display_uri.rstrip("/")
    lines = [f"{what:<24} {base}/{page}" for what, page in pages.items()]
    if local:
        serve_ui(tracking, port, [*lines, *notes], context)
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


@app.command(rich_help_panel="Results")
def sync(
    name: Annotated[
        str, typer.Argument(help="Name of the search.", autocompletion=complete_searches)
    ],
    pictures: Annotated[
        bool, typer.Option(help="Also send figures, the report and descriptions.")
    ] = True,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Rebuild a search's study and its MLflow runs from its event log; existing data is kept.

    For a study that was lost, and a server that was down, has lost data, or is new. Idempotent.

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
