"""Report of a search as one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hpsearch.config.formatting import ALWAYS_SHOWN, flatten, format_value, summary
from hpsearch.reporting.html_tables import Cell, HtmlTable, render
from hpsearch.reporting.leaderboard import STATUS_ORDER, Row, Summary, TaskScores
from hpsearch.reporting.search_figures import ReportFigure
from hpsearch.reporting.text_tables import (
    MISSING_VALUE,
    Configuration,
    baseline_table,
    configurations_table,
    format_duration,
    format_patches,
    format_percent,
    task_columns,
)

MAX_REPORT_ROWS = 15
"""Number of rows of a table that are shown without expanding it."""
OPEN_UP_TO = 5
"""Number of failed trials up to which their table is initially open."""
FAILED = ("collapsed", "diverged", "failed")


class NextCommand(NamedTuple):
    """Suggested next command and its effect."""

    command_line: str
    description: str


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """Content of the report of a search."""

    name: str
    """Name of the search."""
    lead: str
    """Introductory sentence with search space, patches and objective."""
    totals: Summary
    rows: Sequence[Row]
    """All rows of the leaderboard."""
    verdict: str = ""
    """Result of the registration of the best model."""
    configurations: Sequence[Configuration] = ()
    """Means over training seeds of configurations trained with several."""
    baselines: Mapping[str, TaskScores] = field(default_factory=dict)
    """Test scores by name, the winner first."""
    evaluated: str | None = None
    """Label of the trial that the first of the test scores are of; None without test scores."""
    figures: Sequence[ReportFigure] = ()
    omitted: Sequence[str] = ()
    """Sentences that name the figures which are left out, with the reasons."""
    commands: Sequence[NextCommand] = ()

    @property
    def winner(self) -> Row | None:
        """Trial whose test scores are shown; without test scores, the best on validation."""
        if self.evaluated is None:
            return self.best
        return next((row for row in self.rows if row.run.label == self.evaluated), None)

    @property
    def best(self) -> Row | None:
        """First row of the leaderboard; None if it failed or has no report."""
        first = self.rows[0] if self.rows else None
        if first is None or first.objective is None:
            return None
        return None if first.status in FAILED else first


class Tile(NamedTuple):
    """Key number at the top of the page."""

    name: str
    value: str
    more: str


def render_report(report: SearchReport) -> str:
    """Report as a self-contained HTML page; every value is escaped."""
    return render(
        "search_report.html.j2",
        page=report,
        tiles=_tiles_html(report),
        winner_title=summary(report.winner.run.config) if report.winner else "",
        test_scores=_test_scores(report.baselines),
        leaderboard=_leaderboard(report.rows),
        restarted=[row.run.label for row in report.rows if row.run.restarted_attempts],
        configurations=HtmlTable.of(
            "Means over training seeds",
            configurations_table(report.configurations),
            wide={"settings"},
        ),
        failures=_failures(report.rows),
        max_rows=MAX_REPORT_ROWS,
        max_open_failures=OPEN_UP_TO,
    )


def _tiles_html(page: SearchReport) -> list[Tile]:
    totals, best = page.totals, page.best
    ended = ", ".join(f"{n} {status}" for status in STATUS_ORDER if (n := getattr(totals, status)))
    pruning, detection = format_percent(totals.share_saved), format_percent(totals.share_detected)
    saved = format_percent(totals.share_saved + totals.share_detected)
    value = f"{best.objective:.4f}" if best else MISSING_VALUE
    spent = f"{format_patches(totals.trained)} patches trained"
    if totals.cache_seconds_saved:
        spent += f", {format_duration(totals.cache_seconds_saved)} saved by sharing"
    return [
        Tile(
            "Best objective",
            value,
            f"trial {best.run.label}" if best else "no completed trial yet",
        ),
        Tile("Trials", str(totals.trials), ended or "none started"),
        Tile("Compute saved", saved, f"{pruning} by pruning, {detection} by stopping collapse"),
        Tile("Time", format_duration(totals.seconds), spent),
    ]


def varying_columns(rows: Sequence[Row]) -> list[str]:
    """Flat names of settings with several values, in the order of a summary.

    A setting that is implied by its variant is not a column.
    """
    values: dict[str, set] = {}
    for row in rows:
        for name, value in flatten(row.run.config).items():
            values.setdefault(name, set()).add(value)
    names = [name for name, seen in values.items() if len(seen) > 1]
    order = [*ALWAYS_SHOWN, *(name.split(".")[0] for name in names)]
    return sorted(names, key=lambda name: order.index(name.split(".")[0]))


def _leaderboard(rows: Sequence[Row]) -> HtmlTable:
    """Table of the whole leaderboard, with varying settings in columns."""
    columns = varying_columns(rows)
    numbers = ("objective", "verifi\u00adcation", "match\u00ading", "retrie\u00adval", "seen")
    head = (
        Cell("#"),
        Cell("trial"),
        Cell("ended", text=True),
        *map(Cell, numbers),
        *(Cell(name, text=True) for name in columns),
    )
    return HtmlTable("Leaderboard", head, tuple(_row_cells(row, columns) for row in rows))


def _row_cells(row: Row, columns: Sequence[str]) -> tuple[Cell, ...]:
    flat = flatten(row.run.config)
    value = MISSING_VALUE if row.objective is None else f"{row.objective:.4f}"
    numbers = (value, *task_columns(row), format_patches(row.run.seen))
    settings = [format_value(flat[name]) if name in flat else "" for name in columns]
    return (
        Cell(str(row.rank)),
        Cell(row.run.label, header=True),
        Cell(row.status, status=row.status),
        *map(Cell, numbers),
        *(Cell(setting, text=True) for setting in settings),
    )


def _failures(rows: Sequence[Row]) -> HtmlTable:
    """Table of trials that collapsed, diverged or failed, with reasons."""
    names = ("ended", "settings", "why")
    head = (Cell("trial"), Cell("seen"), *(Cell(name, text=True) for name in names))
    lines = tuple(
        (
            Cell(row.run.label, header=True),
            Cell(format_patches(row.run.seen)),
            Cell(row.status, status=row.status),
            Cell(row.diff, text=True, wide=True),
            Cell(row.run.reason or MISSING_VALUE, text=True, wide=True),
        )
        for row in rows
        if row.status in FAILED
    )
    return HtmlTable("Trials that failed", head, lines)


def _test_scores(scores: Mapping[str, TaskScores]) -> HtmlTable:
    """Table of test scores by name, the best trial first."""
    head = tuple(Cell(name, text=not name) for name in baseline_table(scores).header)
    rows = tuple(
        (Cell(name, text=True, header=True), *(Cell(f"{value:.3f}") for value in values))
        for name, values in scores.items()
    )
    return HtmlTable("Scores on the test patches", head, rows)
