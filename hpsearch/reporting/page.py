"""The report of a search as one HTML file that needs no other file and no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

from matplotlib.figure import Figure

from hpsearch.config.flat import title
from hpsearch.reporting.configurations import Configuration
from hpsearch.reporting.markup import paragraph, section
from hpsearch.reporting.page_style import CSS
from hpsearch.reporting.page_tables import (
    configurations_section,
    failures_section,
    leaderboard_section,
    yardsticks_table,
)
from hpsearch.reporting.plots import svg_uri
from hpsearch.reporting.tables import ORDER, Row, Summary, TaskScores
from hpsearch.reporting.text import MISSING, duration, patches, percent

PIXELS = 116
"""Of the page for an inch of a figure."""


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
        return None if first.status in ("collapsed", "diverged", "failed") else first


def report_page(page: Page) -> str:
    """The whole page; every word of the user's is escaped."""
    parts = [
        _header(page),
        _winner(page),
        leaderboard_section(page.rows, marked=page.winner is not None),
        configurations_section(page.configurations),
        failures_section(page.rows),
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
    spent = f"{patches(totals.trained)} patches trained"
    if totals.seconds_spared:
        spent += f", {duration(totals.seconds_spared)} spared by sharing"
    return [
        ("Best objective", value, f"trial {best.run.label}" if best else "no trial has learnt yet"),
        ("Trials", str(totals.trials), ended or "none started"),
        ("Compute saved", saved, f"{pruning} by pruning, {detection} by stopping collapse"),
        ("Time", duration(totals.seconds), spent),
    ]


def _winner(page: Page) -> str:
    if page.winner is None and not page.yardsticks:
        return ""
    words = title(page.winner.run.config) if page.winner else ""
    return section(
        "The winner",
        f"<p><strong>{escape(words)}</strong></p>" if words else "",
        paragraph(page.verdict),
        yardsticks_table(page.yardsticks),
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
