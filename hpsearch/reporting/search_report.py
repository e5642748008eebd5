"""Report of a search as one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from hpsearch.config.formatting import ALWAYS_SHOWN, Flat, flatten, format_value, summary
from hpsearch.evaluation.bootstrap import HEADLINES, Comparison, Interval, format_bounds
from hpsearch.reporting.html_tables import Cell, HtmlTable, render
from hpsearch.reporting.leaderboard import STATUS_ORDER, Row, Summary, TaskScores, trial_seconds
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

OPEN_UP_TO = 5
"""Number of failed trials up to which their table is initially open."""
FAILED = ("infeasible", "collapsed", "diverged", "failed")


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
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """Intervals of the test scores, by the names of ``baselines`` and by headline."""
    gains: Mapping[str, Comparison] = field(default_factory=dict)
    """Winner minus each of the others of ``baselines``, in mean mAP."""
    examples: Sequence[ReportFigure] = ()
    """Figures of what the best trial's model does with patches."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Origin of the results, by name: dates, commit, versions, data."""
    refresh_seconds: int = 0
    """Seconds after which the page loads itself again; 0 if the search does not run."""
    follow_command: str = ""
    """Command that writes the page again while the search runs."""
    written: str = ""
    """Time at which the page was written."""
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
        test_scores=_test_scores(report),
        leaderboard=_leaderboard(report.rows),
        restarted=[row.run.label for row in report.rows if row.run.restarted_attempts],
        configurations=HtmlTable.of(
            "Means over training seeds",
            configurations_table(report.configurations),
            wide={"settings"},
        ),
        failures=_failures(report.rows),
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


def format_date(seconds: float) -> str:
    """Format a time in seconds since 1970: ``2026-11-28 01:25 UTC``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _leaderboard(rows: Sequence[Row]) -> HtmlTable:
    """Table of the whole leaderboard: varying settings as columns, tasks where a trial has them."""
    columns = varying_columns(rows)
    tasks = any(set(task_columns(row)) != {MISSING_VALUE} for row in rows)
    three = ("verifi\u00adcation", "match\u00ading", "retrie\u00adval") if tasks else ()
    numbers = ("objective", *three, "seen", "time")
    head = (
        Cell("#"),
        Cell("trial"),
        Cell("ended", text=True),
        *map(Cell, numbers),
        *(Cell(name, text=True) for name in columns),
        Cell("started", text=True),
    )
    return HtmlTable(
        "Leaderboard", head, tuple(_row_cells(row, columns, tasks=tasks) for row in rows)
    )


def _row_cells(row: Row, columns: Sequence[str], *, tasks: bool) -> tuple[Cell, ...]:
    flat = flatten(row.run.config)
    value = MISSING_VALUE if row.objective is None else f"{row.objective:.4f}"
    seconds = trial_seconds(row.run)
    return (
        Cell(str(row.rank)),
        Cell(row.run.label, header=True),
        Cell(row.status, status=row.status),
        Cell(value, key=row.objective),
        *(map(Cell, task_columns(row)) if tasks else ()),
        Cell(format_patches(row.run.seen), key=row.run.seen),
        Cell(format_duration(seconds) if seconds else MISSING_VALUE, key=seconds or None),
        *(_setting_cell(flat.get(name)) for name in columns),
        Cell(format_date(row.run.started), text=True, key=row.run.started),
    )


def _setting_cell(value: Flat | None) -> Cell:
    text = "" if value is None else format_value(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(text, text=True)
    return Cell(text, text=True, key=value)


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


def _test_scores(report: SearchReport) -> HtmlTable:
    """Table of test scores by name with their intervals, the best trial first, and its gains."""
    scores, gains = report.baselines, report.gains
    head = tuple(Cell(name, text=not name) for name in baseline_table(scores).header)
    rows = tuple(
        (
            Cell(name, text=True, header=True),
            *(
                Cell(f"{value:.3f}", more=_bounds(report.intervals.get(name, {}).get(headline)))
                for headline, value in zip(HEADLINES, values, strict=True)
            ),
            *([_gain_cell(gains.get(name))] if gains else []),
        )
        for name, values in scores.items()
    )
    return HtmlTable(
        "Scores on the test patches", (*head, *([Cell("gain")] if gains else [])), rows
    )


def _gain_cell(found: Comparison | None) -> Cell:
    if found is None:
        return Cell("")
    return Cell(f"{found.difference:+.3f}", more=_bounds(found, "+.3f"))


def _bounds(found: Interval | Comparison | None, style: str = ".3f") -> str:
    return format_bounds(found, style, between=" … ") if found else ""
