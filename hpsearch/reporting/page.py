"""The report of a search as one HTML file that needs no other file and no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

from matplotlib.figure import Figure

from hpsearch.config.flat import ALWAYS, flatten, readable, title
from hpsearch.reporting.markup import cell, fold, head, paragraph, section, table
from hpsearch.reporting.page_style import CSS
from hpsearch.reporting.plots import svg_uri
from hpsearch.reporting.style import COLOURS
from hpsearch.reporting.tables import ORDER, Row, Summary, TaskScores
from hpsearch.reporting.text import (
    MISSING,
    duration,
    patches,
    percent,
    three_scores,
    yardstick_table,
)

SHOWN = 15
"""Rows of the leaderboard before the fold."""
PIXELS = 116
"""Of the page for an inch of a figure."""
UNFOLDED = 5
"""So many failures are shown without a click."""


class Picture(NamedTuple):
    """A figure with the words for those who do not see it and for those who do."""

    name: str
    """Letters and dashes; the name of its PNG file."""
    figure: Figure
    alt: str
    caption: str


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
        return None if first.status in ("collapsed", "diverged", "failed") else first


def report_page(page: Page) -> str:
    """The whole page; every word of the user's is escaped."""
    parts = [
        _header(page),
        _winner(page),
        _leaderboard(page),
        _stopped(page.rows),
        _pictures(page.pictures),
        _commands(page.commands),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.name)} – search report</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n<footer>Written by hpsearch.</footer>\n</main>\n</body>\n"
        "</html>\n"
    )


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


def _header(page: Page) -> str:
    tiles = "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in _tiles(page)
    )
    return (
        f"<header>\n<h1>{escape(page.name)}</h1>\n{paragraph(page.lead, lead=True)}\n"
        f'<dl class="tiles">{tiles}</dl>\n</header>'
    )


def _tiles(page: Page) -> list[tuple[str, str, str]]:
    totals, best = page.totals, page.winner
    ended = ", ".join(f"{n} {status}" for status in ORDER if (n := getattr(totals, status)))
    pruning, detection = percent(totals.share_saved), percent(totals.share_detected)
    saved = percent(totals.share_saved + totals.share_detected)
    value = f"{best.objective:.4f}" if best else MISSING
    return [
        ("Best objective", value, f"trial {best.run.label}" if best else "no trial has learnt yet"),
        ("Trials", str(totals.trials), ended or "none started"),
        ("Compute saved", saved, f"{pruning} by pruning, {detection} by stopping collapse"),
        ("Time", duration(totals.seconds), f"{patches(totals.trained)} patches trained"),
    ]


def _winner(page: Page) -> str:
    if page.winner is None and not page.yardsticks:
        return ""
    words = title(page.winner.run.config) if page.winner else ""
    return section(
        "The winner",
        f"<p><strong>{escape(words)}</strong></p>" if words else "",
        paragraph(page.verdict),
        _yardsticks(page.yardsticks),
    )


def _yardsticks(scores: Mapping[str, TaskScores]) -> str:
    if not scores:
        return ""
    header = yardstick_table(scores).header
    top = [head(name, text=not name) for name in header]
    rows = [
        [head(name, text=True, scope="row"), *(cell(f"{value:.3f}") for value in values)]
        for name, values in scores.items()
    ]
    drawn = table(top, rows, label="Scores on the test patches", marked=True)
    note = "mAP on the test sequences, which no trial has seen; 1 is perfect."
    return f'<div class="narrow">{drawn}</div>\n{paragraph(note, note=True)}'


def _leaderboard(page: Page) -> str:
    rows = page.rows
    if not rows:
        return section("Leaderboard", paragraph("No trial has started yet."))
    columns = varying_columns(rows)
    numbers = ("objective", "verifi\u00adcation", "match\u00ading", "retrie\u00adval", "seen")
    top = [head("#"), head("trial"), head("ended", text=True), *map(head, numbers)]
    top += [head(name, text=True) for name in columns]
    lines = [_line(row, columns) for row in rows]
    shown = table(top, lines[:SHOWN], label="Leaderboard", marked=page.winner is not None)
    more = table(top, lines[SHOWN:], label="Leaderboard, continued")
    note = (
        "Only settings that vary are shown; seen counts patches. Scores are those of the last "
        "report on the validation sequences. A constant encoder stands last, whatever its mAP."
    )
    rest = fold(f"The other {len(lines) - SHOWN} trials", more) if len(lines) > SHOWN else ""
    return section("Leaderboard", paragraph(note, note=True), shown, rest)


def _line(row: Row, columns: Sequence[str]) -> list[str]:
    flat = flatten(row.run.config)
    value = MISSING if row.objective is None else f"{row.objective:.4f}"
    numbers = (value, *three_scores(row), patches(row.run.seen))
    settings = [readable(flat[name]) if name in flat else "" for name in columns]
    return [
        cell(str(row.place)),
        head(row.run.label, scope="row"),
        _status(row),
        *(cell(number) for number in numbers),
        *(cell(setting, text=True) for setting in settings),
    ]


def _stopped(rows: Sequence[Row]) -> str:
    """Why trials collapsed, diverged or failed."""
    bad = [row for row in rows if row.status in ("collapsed", "diverged", "failed")]
    if not bad:
        return ""
    names = ("ended", "settings", "why")
    top = [head("trial"), head("seen"), *(head(name, text=True) for name in names)]
    lines = [
        [
            head(row.run.label, scope="row"),
            cell(patches(row.run.seen)),
            _status(row),
            cell(row.differs, text=True, wide=True),
            cell(row.run.reason or MISSING, text=True, wide=True),
        ]
        for row in bad
    ]
    drawn = table(top, lines, label="Trials that failed")
    heading = f"{len(bad)} of {len(rows)} trials"
    return section(
        "What came to nothing, and why", fold(heading, drawn, unfolded=len(bad) <= UNFOLDED)
    )


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    return section("Figures", *(_figure(picture) for picture in pictures))


def _figure(picture: Picture) -> str:
    width = round(PIXELS * picture.figure.get_figwidth())
    return (
        f'<figure id="{escape(picture.name)}"><img src="{svg_uri(picture.figure)}" '
        f'width="{width}" alt="{escape(picture.alt)}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _commands(commands: Sequence[Command]) -> str:
    if not commands:
        return ""
    steps = [
        f"<dt>{escape(step.does)}</dt>"
        f'<dd><pre tabindex="0"><code>{escape(step.line)}</code></pre></dd>'
        for step in commands
    ]
    return section("How to go on", f'<dl class="next">{"".join(steps)}</dl>')


def _status(row: Row) -> str:
    dot = f'<span class="dot" style="background:{COLOURS[row.status]}" aria-hidden="true"></span>'
    return f'<td class="text">{dot}{row.status}</td>'
