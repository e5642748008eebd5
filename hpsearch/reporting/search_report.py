"""Report of a search as one HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

from matplotlib.figure import Figure

from hpsearch.config.formatting import ALWAYS, flatten, readable, title
from hpsearch.reporting import search_plots
from hpsearch.reporting.leaderboard import (
    ORDER,
    Direction,
    Row,
    Summary,
    TaskScores,
    leaderboard,
    summary,
)
from hpsearch.reporting.markup import cell, fold, head, paragraph, section, table
from hpsearch.reporting.plot_style import COLOURS, svg_uri
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
from hpsearch.tracking.run_state import Run

CSS = """
:root { color-scheme: light dark; --bg: #ffffff; --ink: #1f2329; --muted: #5d656e; --line: #e3e6ea;
  --soft: #f5f7f9; --accent: #1f6fb2; --good: #e8f2fb; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --ink: #e8eaed; --muted: #9aa3ad;
  --line: #2b3138; --soft: #1b1f24; --accent: #6db3f2; --good: #17293a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 40px 28px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em;
  overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 48px 0 12px; }
p { margin: 0 0 12px; max-width: 88ch; }
.lead, .note, figcaption { color: var(--muted); }
.note, figcaption { font-size: 14px; }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr));
  margin: 26px 0 0; padding: 0; }
.tiles div { background: var(--soft); border-radius: 10px; padding: 14px 16px; }
.tiles dt { font-size: 13px; color: var(--muted); }
.tiles dd { margin: 2px 0 0; font-size: 25px; font-weight: 600; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tiles small { display: block; font-size: 13px; font-weight: 400; color: var(--muted); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 7px 10px; text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--muted); font-size: 13px; vertical-align: bottom; }
thead th { white-space: normal; hyphens: manual; border-bottom: 1px solid var(--line);
  background: var(--soft); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody th { color: var(--ink); font-size: 14px; vertical-align: middle; }
td.text, th.text { text-align: left; }
td.wide { white-space: normal; min-width: 22em; }
tr.first { background: var(--good); }
.dot { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 7px; }
.narrow { max-width: 720px; margin-bottom: 8px; }
details { margin: 14px 0 0; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; padding: 4px 0; }
figure { margin: 26px 0 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { margin-top: 6px; max-width: 85ch; }
dl.next { margin: 0; }
dl.next dt { margin-top: 12px; color: var(--muted); font-size: 14px; }
dl.next dd { margin: 4px 0 0; }
pre { margin: 0; background: var(--soft); border-radius: 8px; padding: 10px 14px; overflow-x: auto;
  font: 14px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
footer { margin-top: 56px; padding-top: 14px; border-top: 1px solid var(--line);
  color: var(--muted); font-size: 13px; }
@media print { details > * { display: block; } .scroll { overflow: visible; } }
"""


SHOWN = 15
"""Rows of a table before the fold."""
UNFOLDED = 5
"""So many failures are shown without a click."""


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


def leaderboard_section(rows: Sequence[Row], *, marked: bool) -> str:
    """The whole leaderboard, settings that vary in columns; ``marked`` stresses row one."""
    if not rows:
        return section("Leaderboard", paragraph("No trial has started yet."))
    columns = varying_columns(rows)
    numbers = ("objective", "verifi\u00adcation", "match\u00ading", "retrie\u00adval", "seen")
    top = [head("#"), head("trial"), head("ended", text=True), *map(head, numbers)]
    top += [head(name, text=True) for name in columns]
    lines = [_line(row, columns) for row in rows]
    shown = table(top, lines[:SHOWN], label="Leaderboard", marked=marked)
    more = table(top, lines[SHOWN:], label="Leaderboard, continued")
    note = (
        "Only settings that vary are shown; seen counts patches. Scores are those of the last "
        "report on the validation sequences. A constant encoder stands last, whatever its mAP."
    )
    anew = ", ".join(row.run.label for row in rows if row.run.anew)
    if anew:
        note += f" Begun anew, because a checkpoint was damaged: {anew}."
    rest = fold(_others(len(lines) - SHOWN, "trial"), more) if len(lines) > SHOWN else ""
    return section("Leaderboard", paragraph(note, note=True), shown, rest)


def configurations_section(found: Sequence[Configuration]) -> str:
    """Means over training seeds; nothing if each was trained once."""
    if not found:
        return ""
    drawn = configurations_table(found)
    top = [head(name, text=name in drawn.left) for name in drawn.header]
    rows = [
        [
            cell(word, text=name in drawn.left, wide=name == "settings")
            for name, word in zip(drawn.header, row, strict=True)
        ]
        for row in drawn.rows
    ]
    note = (
        "Trials that differ in their training seed alone, by the mean of those that ended by "
        "themselves; one that collapsed counts with the worst objective. The best of several "
        "seeds is luck, their mean is what a configuration is worth."
    )
    shown = table(top, rows[:SHOWN], label="Means over training seeds", marked=True)
    more = table(top, rows[SHOWN:], label="Means over training seeds, continued")
    rest = fold(_others(len(rows) - SHOWN, "configuration"), more) if len(rows) > SHOWN else ""
    return section("Configurations, over their seeds", paragraph(note, note=True), shown, rest)


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


def failures_section(rows: Sequence[Row]) -> str:
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


def yardsticks_table(scores: Mapping[str, TaskScores]) -> str:
    """Test scores by name, the winner first."""
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


def _status(row: Row) -> str:
    dot = f'<span class="dot" style="background:{COLOURS[row.status]}" aria-hidden="true"></span>'
    return f'<td class="text">{dot}{row.status}</td>'


def _others(count: int, what: str) -> str:
    return f"The other {what}" if count == 1 else f"The other {count} {what}s"


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


MAX_SHOWN = ("val/verification", "val/matching", "val/retrieval", "val/mAP")
"""Scores that the words for the best trial give."""


def search_pictures(
    runs: Sequence[Run],
    *,
    direction: Direction,
    budget: int,
    metric: str = "val/mAP",
    importances: Mapping[str, float] | None = None,
) -> list[Picture]:
    """All figures that follow from the runs of a search, in the order of the report.

    Args:
        budget: patches that a full trial sees.
        importances: share of the objective's spread that each setting explains, if it is known.
    """
    totals = summary(runs, budget=budget)
    pictures = [
        _curves(runs, direction=direction, metric=metric),
        _history(runs, direction=direction, metric=metric),
        _collapse(runs, totals),
        _compute(totals),
    ]
    if importances:
        pictures.insert(2, _importance(importances))
    rows = leaderboard(runs, direction=direction, limit=1)
    if rows and rows[0].run.reports:
        pictures.insert(1, _winning_run(rows[0].run))
    return pictures


def _curves(runs: Sequence[Run], *, direction: Direction, metric: str) -> Picture:
    return Picture(
        "learning-curves",
        search_plots.search_curves(runs, direction=direction, metric=metric),
        f"Line chart of {metric} over patches seen, one line a trial.",
        "The ten best trials against those that were stopped. Trials that collapsed or diverged "
        "are marked on the axis where they were stopped.",
    )


def _winning_run(run: Run) -> Picture:
    last = ", ".join(
        f"{k.removeprefix('val/')} {v:.3f}" for k, v in run.last.items() if k in MAX_SHOWN
    )
    return Picture(
        "best-trial",
        search_plots.learning_curves(run),
        f"Two line charts of trial {run.label} over patches seen: training loss and validation "
        f"mAP. At the last report: {last or 'no score'}.",
        f"Trial {run.label}. An encoder that maps every patch to one point pays the collapse "
        "value.",
    )


def _history(runs: Sequence[Run], *, direction: Direction, metric: str) -> Picture:
    return Picture(
        "trial-by-trial",
        search_plots.history(runs, direction=direction, metric=metric),
        f"Scatter chart of the last {metric} of each trial in the order of their start.",
        "The last report of every trial. Marks of pruned trials are lower also because they were "
        "trained on fewer patches.",
    )


def _importance(importances: Mapping[str, float]) -> Picture:
    ranked = sorted(importances.items(), key=lambda item: -item[1])[:3]
    words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked)
    return Picture(
        "importance",
        search_plots.importance(importances),
        f"Bar chart of the importance of settings. The first: {words}.",
        "Which settings the objective depended on, within the ranges that were searched.",
    )


def _collapse(runs: Sequence[Run], totals: Summary) -> Picture:
    return Picture(
        "collapse-map",
        search_plots.collapse_map(runs),
        "Scatter chart of patches a batch against learning rate, marked by how each trial ended; "
        f"{totals.collapsed} of {totals.trials} collapsed.",
        f"Where trials collapsed{'' if totals.collapsed else ': none did'}. The number beside a "
        "mark is K, the views of each point in a batch.",
    )


def _compute(totals: Summary) -> Picture:
    return Picture(
        "compute",
        search_plots.compute(totals),
        f"Bar chart: {totals.trained} patches trained, {totals.saved_by_pruning} saved by pruning, "
        f"{totals.saved_by_detection} saved by stopping collapsed and diverged trials, "
        f"{totals.lost_to_failures} lost to failures, {totals.trained_again} trained again, of "
        f"{totals.budget}.",
        "Patches trained, lost and saved, as shares of what all trials would take to the end. "
        + _sharing(totals),
    )


def _sharing(totals: Summary) -> str:
    if not totals.seconds_sharing and not totals.seconds_spared:
        return ""
    return (
        f"Denoisers and first weights that trials share took {duration(totals.seconds_sharing)} to "
        f"make, beside this; making them for each trial would have taken "
        f"{duration(totals.seconds_spared)} more."
    )
