"""Tables as text and Markdown."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from hpsearch.config.formatting import differences
from hpsearch.reporting.leaderboard import (
    ORDER,
    Direction,
    Row,
    Summary,
    TaskScores,
    objective,
    outcome,
    task_scores,
    trials_of,
)
from hpsearch.tracking.run_state import Run, repeats
from hpsearch.untrusted import markdown_text

WIDTH = 100
"""Columns of a terminal that a table fits into."""
MISSING = "–"


class Table(NamedTuple):
    """Cells as they are shown; the columns named in ``left`` are text, all others numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[str] = frozenset()


def leaderboard_table(rows: Sequence[Row], *, tasks: bool = False) -> Table:
    """Place, trial, how it ended, objective, patches seen, what differs from the other trials.

    Args:
        tasks: also the three tasks, which leaves less room for the settings. Those of a collapsed
            or diverged trial mean nothing and are not shown.
    """
    three = ("verification", "matching", "retrieval") if tasks else ()
    header = ("#", "trial", "ended", "objective", *three, "seen", "settings")
    cells = tuple(_cells(row, tasks=tasks) for row in rows)
    return Table(header, cells, frozenset({"ended", "settings"}))


def yardstick_table(scores: Mapping[str, TaskScores | tuple[float, float, float, float]]) -> Table:
    """The winner and what it is compared with, in the order given; mAP in [0, 1]."""
    header = ("", "verification", "matching", "retrieval", "mean mAP")
    rows = tuple((name, *(f"{value:.3f}" for value in values)) for name, values in scores.items())
    return Table(header, rows, frozenset({""}))


def summary_lines(totals: Summary) -> list[str]:
    """How the trials ended, what they cost and what was saved, one sentence each."""
    counts = [f"{n} {status}" for status in ORDER if (n := getattr(totals, status))]
    lines = [
        f"{totals.trials} trials: {', '.join(counts) or 'none started'}",
        f"{totals.trained:,} of {totals.budget:,} patches trained: "
        f"{percent(totals.share_trained)} of what all trials would take to the end",
        f"Pruning saved {percent(totals.share_saved)} of the compute, "
        f"stopping collapsed and diverged trials {percent(totals.share_detected)}",
    ]
    if totals.lost_to_failures:
        lines.append(f"{totals.lost_to_failures:,} patches were lost to failed trials")
    if totals.restarts:
        lines.append(
            f"Trials went on after a crash or a stop {_times(totals.restarts)}, which trained "
            f"{totals.trained_again:,} patches again"
        )
    if totals.anew:
        lines.append(f"A damaged checkpoint made trials begin anew {_times(totals.anew)}")
    if totals.seconds_sharing or totals.seconds_spared:
        lines.append(
            f"Shared denoisers and first weights took {duration(totals.seconds_sharing)} to make "
            f"and spared {duration(totals.seconds_spared)}"
        )
    lines.append(
        f"{duration(totals.seconds)} from first to last, "
        f"{duration(totals.trial_seconds)} in trials added up"
    )
    return lines


def three_scores(row: Row) -> list[str]:
    """Verification, matching and retrieval as shown; nothing for a trial that failed to learn."""
    scores = None if row.status in ("collapsed", "diverged") else task_scores(row.run.last)
    return [MISSING] * 3 if scores is None else [f"{score:.3f}" for score in scores[:3]]


def plain(table: Table, *, width: int = WIDTH) -> str:
    """Aligned columns within ``width``; the last column wraps at `` · `` or a space."""
    cells = [table.header, *table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.header))]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    room = max(12, width - before)
    lines = [line for row in cells for line in _lines(row, widths, table, room)]
    return "\n".join(line.rstrip() for line in lines)


def markdown(table: Table) -> str:
    """A pipe table."""
    rule = [":--" if name in table.left else "--:" for name in table.header]
    rows = [table.header, rule, *table.rows]
    return "\n".join(f"| {' | '.join(_escape(cell) for cell in row)} |" for row in rows)


def percent(share: float) -> str:
    """``0.384`` → ``38 %``; something above nothing is never 0 %."""
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """``312`` → ``5 min 12 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def patches(count: int) -> str:
    """``33400`` → ``33k``, in at most five characters."""
    if count < 1000:
        return str(count)
    if count < 999_500:
        return f"{count / 1000:.0f}k" if count >= 9_950 else f"{count / 1000:.1f}k"
    return f"{count / 1e6:.1f}M"


def _times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def _cells(row: Row, *, tasks: bool) -> tuple[str, ...]:
    value = MISSING if row.objective is None else f"{row.objective:.4f}"
    head = (str(row.place), row.run.label, row.status, value)
    return (*head, *(three_scores(row) if tasks else ()), patches(row.run.seen), row.differs)


def _lines(row: Sequence[str], widths: list[int], table: Table, room: int) -> Iterable[str]:
    head = "  ".join(
        cell.ljust(size) if name in table.left else cell.rjust(size)
        for cell, size, name in zip(row[:-1], widths, table.header, strict=False)
    )
    last = row[-1] if table.header[-1] in table.left else row[-1].rjust(widths[-1])
    folded = _fold(last, room) or [""]
    yield f"{head}  {folded[0]}"
    for more in folded[1:]:
        yield f"{' ' * len(head)}  {more}"


def _fold(text: str, room: int) -> list[str]:
    """Lines of at most ``room`` characters, broken between parts where they are short enough."""
    lines: list[str] = []
    for part in text.split(" · "):
        if lines and len(lines[-1]) + len(part) + 3 <= room:
            lines[-1] += f" · {part}"
        else:
            lines += textwrap.wrap(part, room) or [part]
    return lines


def _escape(cell: str) -> str:
    return cell if cell in (":--", "--:") else markdown_text(cell)


COUNTED = ("completed", "collapsed", "diverged")
"""Who ended by itself; that of a collapsed trial is the worst objective there is."""


class Configuration(NamedTuple):
    """Trials that differ in their training seed alone."""

    place: int
    """From 1, by mean."""
    runs: list[Run]
    values: list[float]
    """Objectives of the trials that ended by themselves."""
    differs: str
    """The configuration in words, without what all share."""

    @property
    def mean(self) -> float | None:
        """None if no trial ended by itself."""
        return mean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the sample; None of fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else None


def configurations(runs: Sequence[Run], *, direction: Direction) -> list[Configuration]:
    """All of them by their mean; none if each was trained once."""
    groups = repeats(trials_of(runs))
    if all(len(group) == 1 for group in groups):
        return []
    words = differences([group[0].config.model_copy(update={"seed": 0}) for group in groups])
    found = [
        Configuration(0, group, _values(group), differs)
        for group, differs in zip(groups, words, strict=True)
    ]
    sign = -1 if direction == "maximize" else 1
    found.sort(key=lambda c: (c.mean is None, sign * (c.mean or 0.0), c.runs[0].number))
    return [one._replace(place=place) for place, one in enumerate(found, 1)]


def configurations_table(found: Sequence[Configuration]) -> Table:
    """Place, mean ± standard deviation over so many trials, how they ended, what differs."""
    header = ("#", "trials", "mean", "± sd", "n", "ended", "settings")
    rows = tuple(
        (
            str(one.place),
            " ".join(run.label for run in one.runs),
            MISSING if one.mean is None else f"{one.mean:.4f}",
            MISSING if one.spread is None else f"{one.spread:.4f}",
            str(len(one.values)),
            _endings(one.runs),
            one.differs,
        )
        for one in found
    )
    return Table(header, rows, frozenset({"trials", "ended", "settings"}))


def _values(group: Sequence[Run]) -> list[float]:
    ended = [objective(run) for run in group if outcome(run) in COUNTED]
    return [value for value in ended if value is not None]


def _endings(group: Sequence[Run]) -> str:
    counts = Counter(outcome(run) for run in group)
    return ", ".join(f"{counts[status]} {status}" for status in ORDER if counts[status])
