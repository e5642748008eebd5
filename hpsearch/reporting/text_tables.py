"""Tables as text and Markdown."""

import math
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, mean, stdev
from typing import NamedTuple

from hpsearch.config.formatting import diff_summaries
from hpsearch.evaluation.bootstrap import student_quantile
from hpsearch.reporting.leaderboard import (
    STATUS_ORDER,
    Direction,
    Row,
    Summary,
    TaskScores,
    last_objective,
    shown_status,
    task_scores,
    trials_of,
)
from hpsearch.tracking.run_state import Run, group_by_config, mean_by_seed
from hpsearch.untrusted import markdown_text

TERMINAL_WIDTH = 100
"""Default width of a table in characters."""
MIN_WRAPPED_WIDTH = 12
"""Minimum width of the last column if it is text, which wraps."""
MISSING_VALUE = "–"


class TextTable(NamedTuple):
    """Table of formatted cells; columns named in ``left`` are text, all others numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[str] = frozenset()


def leaderboard_table(rows: Sequence[Row], *, tasks: bool = False) -> TextTable:
    """Table of the leaderboard: rank, trial, status, objective, patches seen, differing settings.

    Args:
        rows: rows of the leaderboard.
        tasks: True to include the three tasks, with less space for the settings. Those of a
            collapsed or diverged trial are meaningless and omitted.
    """
    three = ("verification", "matching", "retrieval") if tasks else ()
    header = ("#", "trial", "ended", "objective", *three, "seen", "settings")
    cells = tuple(_row_cells_text(row, tasks=tasks) for row in rows)
    return TextTable(header, cells, frozenset({"ended", "settings"}))


def baseline_table(
    scores: Mapping[str, TaskScores | tuple[float, float, float, float]],
) -> TextTable:
    """Table of the best trial and its baselines, in the given order; mAP in [0, 1]."""
    header = ("", "verification", "matching", "retrieval", "mean mAP")
    rows = tuple((name, *(f"{value:.3f}" for value in values)) for name, values in scores.items())
    return TextTable(header, rows, frozenset({""}))


def summary_lines(totals: Summary) -> list[str]:
    """Summary of a search as sentences: statuses, compute, and savings."""
    detected = (
        "collapsed, diverged and infeasible" if totals.infeasible else "collapsed and diverged"
    )
    counts = [f"{n} {status}" for status in STATUS_ORDER if (n := getattr(totals, status))]
    lines = [
        f"{totals.trials} trials: {', '.join(counts) or 'none started'}",
        f"{totals.trained:,} of {totals.budget:,} patches trained: "
        f"{format_percent(totals.share_trained)} of the budget of all trials"
        + (", last batches included" if totals.overshoot else ""),
        f"Pruning saved {format_percent(totals.share_saved)} of the compute, "
        f"stopping {detected} trials {format_percent(totals.share_detected)}",
    ]
    if totals.lost_to_failures:
        lines.append(f"{totals.lost_to_failures:,} patches were lost to failed trials")
    if totals.restarts:
        lines.append(
            f"Trials were resumed after a failure or stop {_format_times(totals.restarts)}, which "
            "trained "
            f"{totals.retrained_patches:,} patches again"
        )
    if totals.restarts_from_scratch:
        lines.append(
            f"Trials were restarted from scratch {_format_times(totals.restarts_from_scratch)}, "
            "because a checkpoint was damaged"
        )
    if totals.cache_seconds_computed or totals.cache_seconds_saved:
        lines.append(
            "Shared denoisers and warm starts took "
            f"{format_duration(totals.cache_seconds_computed)} to compute "
            f"and saved {format_duration(totals.cache_seconds_saved)}"
        )
    lines.append(
        f"{format_duration(totals.seconds)} from the first trial to the last, "
        f"{format_duration(totals.trial_seconds)} summed over trials"
    )
    return lines


def task_columns(row: Row) -> list[str]:
    """Cells of verification, matching and retrieval; empty for a collapsed or diverged trial."""
    scores = None if row.status in ("collapsed", "diverged") else task_scores(row.run.last)
    return [MISSING_VALUE] * 3 if scores is None else [f"{score:.3f}" for score in scores[:3]]


def to_text(table: TextTable, *, width: int = TERMINAL_WIDTH) -> str:
    """Table as text in aligned columns that fit into the terminal.

    The last column wraps at `` · `` or a space. Columns that do not fit follow in a second table
    with the first column again, so that no number is broken.

    Args:
        table: the table.
        width: maximum width in characters; less if the terminal is narrower.
    """
    width = min(width, shutil.get_terminal_size((TERMINAL_WIDTH, 24)).columns)
    cells = [table.header, *table.rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.header))]
    fitting = _num_fitting(table, widths, width)
    if fitting < len(widths):
        parts = (range(fitting), range(fitting, len(widths)))
        return "\n\n".join(to_text(_columns(table, part), width=width) for part in parts)
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    last_width = max(MIN_WRAPPED_WIDTH, width - before)
    lines = [line for row in cells for line in _aligned_lines(row, widths, table, last_width)]
    return "\n".join(line.rstrip() for line in lines)


def _num_fitting(table: TextTable, widths: Sequence[int], width: int) -> int:
    """Number of columns that fit, at least two; the last of a table may wrap if it is text."""
    needed = list(widths)
    if table.header[-1] in table.left:
        needed[-1] = min(needed[-1], MIN_WRAPPED_WIDTH)
    ends = [sum(needed[: i + 1]) + 2 * i for i in range(len(needed))]
    return max(min(2, len(needed)), sum(end <= width for end in ends))


def _columns(table: TextTable, numbers: Iterable[int]) -> TextTable:
    """First column and the others of the given numbers."""
    chosen = list(dict.fromkeys([0, *numbers]))
    rows = tuple(tuple(row[i] for i in chosen) for row in table.rows)
    return table._replace(header=tuple(table.header[i] for i in chosen), rows=rows)


def to_markdown(table: TextTable) -> str:
    """Table as a Markdown pipe table."""
    rule = [":--" if name in table.left else "--:" for name in table.header]
    rows = [table.header, rule, *table.rows]
    return "\n".join(f"| {' | '.join(_escape_pipe(cell) for cell in row)} |" for row in rows)


def format_percent(share: float) -> str:
    """Format a share in percent: ``0.384`` → ``38 %``; a positive share is never ``0 %``."""
    return "under 1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def format_duration(seconds: float) -> str:
    """Format seconds: ``312`` → ``5 min 12 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def format_patches(count: int) -> str:
    """Format a number of patches in at most five characters: ``33400`` → ``33k``."""
    if count < 1000:
        return str(count)
    if count < 999_500:
        return f"{count / 1000:.0f}k" if count >= 9_950 else f"{count / 1000:.1f}k"
    return f"{count / 1e6:.1f}M"


def _format_times(count: int) -> str:
    return "once" if count == 1 else "twice" if count == 2 else f"{count} times"


def _row_cells_text(row: Row, *, tasks: bool) -> tuple[str, ...]:
    value = MISSING_VALUE if row.objective is None else f"{row.objective:.4f}"
    head = (str(row.rank), row.run.label, row.status, value)
    return (*head, *(task_columns(row) if tasks else ()), format_patches(row.run.seen), row.diff)


def _aligned_lines(
    row: Sequence[str], widths: list[int], table: TextTable, last_width: int
) -> Iterable[str]:
    head = "  ".join(
        cell.ljust(size) if name in table.left else cell.rjust(size)
        for cell, size, name in zip(row[:-1], widths, table.header, strict=False)
    )
    is_text = table.header[-1] in table.left
    folded = (_wrap(row[-1], last_width) or [""]) if is_text else [row[-1].rjust(widths[-1])]
    yield f"{head}  {folded[0]}"
    for more in folded[1:]:
        yield f"{' ' * len(head)}  {more}"


def _wrap(text: str, last_width: int) -> list[str]:
    """Wrap text to ``last_width`` characters, between parts if possible."""
    lines: list[str] = []
    for part in text.split(" · "):
        if lines and len(lines[-1]) + len(part) + 3 <= last_width:
            lines[-1] += f" · {part}"
        else:
            lines += textwrap.wrap(part, last_width, break_on_hyphens=False) or [part]
    return lines


def _escape_pipe(cell: str) -> str:
    return cell if cell in (":--", "--:") else markdown_text(cell)


MIN_SEEDS = 3
"""Seeds from which a mean has an interval; that of two extends 13 standard errors each way."""
COUNTED_STATUSES = ("completed", "collapsed", "diverged")
"""Statuses whose objective counts in means; that of a collapsed trial is the worst possible."""


class Configuration(NamedTuple):
    """Configuration whose trials differ in the training seed only."""

    rank: int
    """Rank by mean, from 1."""
    runs: list[Run]
    values: list[float]
    """Objective of each seed whose trial completed, collapsed or diverged; trials of the same seed
    are one observation, with their mean."""
    diff: str
    """Summary of the configuration, without settings that all share."""

    @property
    def mean(self) -> float | None:
        """Mean objective; None without objectives."""
        return mean(self.values) if self.values else None

    @property
    def standard_deviation(self) -> float | None:
        """Sample standard deviation of the objective; None for fewer than two seeds."""
        return stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % t-interval of the mean over seeds; None for fewer than three."""
        if len(self.values) < MIN_SEEDS:
            return None
        error = stdev(self.values) / math.sqrt(len(self.values))
        half = student_quantile(0.95, len(self.values) - 1) * error
        return fmean(self.values) - half, fmean(self.values) + half


def group_configurations(runs: Sequence[Run], *, direction: Direction) -> list[Configuration]:
    """Configurations sorted by mean objective; empty if each was trained with one seed."""
    groups = group_by_config(trials_of(runs))
    if all(len({run.config.seed for run in group}) == 1 for group in groups):
        return []
    summaries = diff_summaries([group[0].config.model_copy(update={"seed": 0}) for group in groups])
    found = [
        Configuration(0, group, _final_values(group), differs)
        for group, differs in zip(groups, summaries, strict=True)
    ]
    sign = -1 if direction == "maximize" else 1
    found.sort(key=lambda c: (c.mean is None, sign * (c.mean or 0.0), c.runs[0].number))
    return [one._replace(rank=rank) for rank, one in enumerate(found, 1)]


def configurations_table(found: Sequence[Configuration]) -> TextTable:
    """Table of configurations: rank, mean, deviation and interval, statuses, differences."""
    header = ("#", "trials", "mean", "± sd", "95 % interval", "n", "ended", "settings")
    rows = tuple(
        (
            str(one.rank),
            " ".join(run.label for run in one.runs),
            MISSING_VALUE if one.mean is None else f"{one.mean:.4f}",
            MISSING_VALUE if one.standard_deviation is None else f"{one.standard_deviation:.4f}",
            _format_interval(one),
            str(len(one.values)),
            _describe_endings(one.runs),
            one.diff,
        )
        for one in found
    )
    return TextTable(header, rows, frozenset({"trials", "ended", "settings"}))


def _format_interval(found: Configuration) -> str:
    if found.interval is not None:
        return "{:.3f} … {:.3f}".format(*found.interval)
    return f"needs {MIN_SEEDS} seeds" if found.values else MISSING_VALUE


def _final_values(group: Sequence[Run]) -> list[float]:
    ended = [run for run in group if shown_status(run) in COUNTED_STATUSES]
    values = [(run, last_objective(run)) for run in ended]
    return mean_by_seed((run, value) for run, value in values if value is not None)


def _describe_endings(group: Sequence[Run]) -> str:
    counts = Counter(shown_status(run) for run in group)
    return ", ".join(f"{counts[status]} {status}" for status in STATUS_ORDER if counts[status])
