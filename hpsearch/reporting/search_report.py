"""Report of a search as one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hpsearch.config.formatting import ALWAYS, flatten, readable, title
from hpsearch.reporting.html_tables import Cell, HtmlTable, render
from hpsearch.reporting.leaderboard import ORDER, Row, Summary, TaskScores
from hpsearch.reporting.search_figures import Picture
from hpsearch.reporting.text_tables import (
    MISSING,
    Configuration,
    configurations_table,
    duration,
    patches,
    percent,
    three_scores,
    yardstick_table,
)

SHOWN = 15
"""Rows of a table before the fold."""
UNFOLDED = 5
"""So many failures are shown without a click."""
FAILED = ("collapsed", "diverged", "failed")


class Command(NamedTuple):
    """What to type next, and what it does."""

    line: str
    does: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the report says."""

    name: str
    """The search."""
    lead: str
    """One sentence: what was searched, on which patches, by which objective."""
    totals: Summary
    rows: Sequence[Row]
    """The whole leaderboard."""
    verdict: str = ""
    """What became of the winner."""
    configurations: Sequence[Configuration] = ()
    """Means over training seeds, if any was trained with more than one."""
    yardsticks: Mapping[str, TaskScores] = field(default_factory=dict)
    """Test scores by name, the winner first."""
    pictures: Sequence[Picture] = ()
    commands: Sequence[Command] = ()

    @property
    def winner(self) -> Row | None:
        """The first of the leaderboard, unless it has not reported or came to nothing."""
        first = self.rows[0] if self.rows else None
        if first is None or first.objective is None:
            return None
        return None if first.status in FAILED else first


class Tile(NamedTuple):
    """A number at the head of the page."""

    name: str
    value: str
    more: str


def report_page(page: Page) -> str:
    """The page as HTML that needs nothing beside it; every value is escaped."""
    return render(
        "search_report.html.j2",
        page=page,
        tiles=_tiles(page),
        winner_title=title(page.winner.run.config) if page.winner else "",
        test_scores=_test_scores(page.yardsticks),
        leaderboard=_leaderboard(page.rows),
        restarted=[row.run.label for row in page.rows if row.run.anew],
        configurations=HtmlTable.of(
            "Means over training seeds",
            configurations_table(page.configurations),
            wide={"settings"},
        ),
        failures=_failures(page.rows),
        max_rows=SHOWN,
        max_open_failures=UNFOLDED,
    )


def _tiles(page: Page) -> list[Tile]:
    totals, best = page.totals, page.winner
    ended = ", ".join(f"{n} {status}" for status in ORDER if (n := getattr(totals, status)))
    pruning, detection = percent(totals.share_saved), percent(totals.share_detected)
    saved = percent(totals.share_saved + totals.share_detected)
    value = f"{best.objective:.4f}" if best else MISSING
    spent = f"{patches(totals.trained)} patches trained"
    if totals.seconds_spared:
        spent += f", {duration(totals.seconds_spared)} spared by sharing"
    return [
        Tile(
            "Best objective",
            value,
            f"trial {best.run.label}" if best else "no trial has learnt yet",
        ),
        Tile("Trials", str(totals.trials), ended or "none started"),
        Tile("Compute saved", saved, f"{pruning} by pruning, {detection} by stopping collapse"),
        Tile("Time", duration(totals.seconds), spent),
    ]


def varying_columns(rows: Sequence[Row]) -> list[str]:
    """Flat names with two values or more, in the order of a title.

    A setting that follows from its variant is no column.
    """
    values: dict[str, set] = {}
    for row in rows:
        for name, value in flatten(row.run.config).items():
            values.setdefault(name, set()).add(value)
    names = [name for name, seen in values.items() if len(seen) > 1]
    order = [*ALWAYS, *(name.split(".")[0] for name in names)]
    return sorted(names, key=lambda name: order.index(name.split(".")[0]))


def _leaderboard(rows: Sequence[Row]) -> HtmlTable:
    """The whole leaderboard, with the settings that vary in columns."""
    columns = varying_columns(rows)
    numbers = ("objective", "verifi\u00adcation", "match\u00ading", "retrie\u00adval", "seen")
    head = (
        Cell("#"),
        Cell("trial"),
        Cell("ended", text=True),
        *map(Cell, numbers),
        *(Cell(name, text=True) for name in columns),
    )
    return HtmlTable("Leaderboard", head, tuple(_line(row, columns) for row in rows))


def _line(row: Row, columns: Sequence[str]) -> tuple[Cell, ...]:
    flat = flatten(row.run.config)
    value = MISSING if row.objective is None else f"{row.objective:.4f}"
    numbers = (value, *three_scores(row), patches(row.run.seen))
    settings = [readable(flat[name]) if name in flat else "" for name in columns]
    return (
        Cell(str(row.place)),
        Cell(row.run.label, header=True),
        Cell(row.status, status=row.status),
        *map(Cell, numbers),
        *(Cell(setting, text=True) for setting in settings),
    )


def _failures(rows: Sequence[Row]) -> HtmlTable:
    """Trials that collapsed, diverged or failed, and why."""
    names = ("ended", "settings", "why")
    head = (Cell("trial"), Cell("seen"), *(Cell(name, text=True) for name in names))
    lines = tuple(
        (
            Cell(row.run.label, header=True),
            Cell(patches(row.run.seen)),
            Cell(row.status, status=row.status),
            Cell(row.differs, text=True, wide=True),
            Cell(row.run.reason or MISSING, text=True, wide=True),
        )
        for row in rows
        if row.status in FAILED
    )
    return HtmlTable("Trials that failed", head, lines)


def _test_scores(scores: Mapping[str, TaskScores]) -> HtmlTable:
    """Scores on test by name, the winner first."""
    head = tuple(Cell(name, text=not name) for name in yardstick_table(scores).header)
    rows = tuple(
        (Cell(name, text=True, header=True), *(Cell(f"{value:.3f}") for value in values))
        for name, values in scores.items()
    )
    return HtmlTable("Scores on the test patches", head, rows)
