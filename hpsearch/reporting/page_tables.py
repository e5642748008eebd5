"""The tables of the report page: leaderboard, means over seeds, yardsticks, failures."""

from collections.abc import Mapping, Sequence

from hpsearch.config.flat import ALWAYS, flatten, readable
from hpsearch.reporting.configurations import Configuration, configurations_table
from hpsearch.reporting.markup import cell, fold, head, paragraph, section, table
from hpsearch.reporting.style import COLOURS
from hpsearch.reporting.tables import Row, TaskScores
from hpsearch.reporting.text import MISSING, patches, three_scores, yardstick_table

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
