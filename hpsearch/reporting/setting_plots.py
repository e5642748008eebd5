"""Plots of trials by their settings: slices, parallel coordinates, contour; by time; and an EDF."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.tri import Triangulation

from hpsearch.config.formatting import Flat, flatten, format_value, varying_keys
from hpsearch.reporting.importance import NOT_SETTINGS
from hpsearch.reporting.leaderboard import (
    STATUS_ORDER,
    Direction,
    last_event_time,
    shown_status,
)
from hpsearch.reporting.plot_style import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SMALL,
    STATUS_COLORS,
    STATUS_MARKERS,
    is_narrow,
    line_styles,
    new_axes,
    set_title,
    status_legend,
)
from hpsearch.tracking.run_state import Run

MAX_PANELS, PANEL_COLUMNS = 9, 3
"""Most settings in a figure of slices, and panels in a row of it."""
MAX_COORDINATES = 10
"""Most settings in a figure of parallel coordinates."""
NUM_BEST = 5
"""Number of best trials that a figure of parallel coordinates stresses."""
MIN_CONTOUR_TRIALS, MIN_CONTOUR_VALUES = 15, 6
"""Fewest trials that have both settings of a contour, and fewest values of each."""
LOG_RANGE = 20.0
"""Ratio of the largest to the least value from which an axis is logarithmic."""
MAX_NAMED_ROWS = 40
"""Most trials that are named in a timeline."""


@dataclass(frozen=True)
class SettingColumn:
    """Values of one setting in all trials."""

    name: str
    values: tuple[Flat | None, ...]
    """Value in each trial; None where the trial's variant has no such setting."""

    @property
    def numbers(self) -> list[float]:
        """All values that are numbers."""
        return [float(value) for value in self.values if _is_number(value)]

    @property
    def is_numeric(self) -> bool:
        """True if every value is a number."""
        return len(self.numbers) == sum(value is not None for value in self.values)

    @property
    def is_log(self) -> bool:
        """True if the values are positive numbers over more than an order of magnitude."""
        numbers = self.numbers
        return self.is_numeric and max(numbers) >= LOG_RANGE * min(numbers) > 0

    def positions(self) -> list[float | None]:
        """Position of each value on an axis: the number, or the rank of a word."""
        if self.is_numeric:
            return [float(value) if _is_number(value) else None for value in self.values]
        words = self.words()
        return [None if value is None else float(words.index(value)) for value in self.values]

    def words(self) -> list[Flat]:
        """Distinct values of a setting that is not numeric, sorted."""
        return sorted({value for value in self.values if value is not None}, key=str)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def setting_columns(runs: Sequence[Run]) -> list[SettingColumn]:
    """Settings that vary between trials, one of those that always change together."""
    flats = [flatten(run.config) for run in runs]
    found: dict[tuple[int, ...], SettingColumn] = {}
    for name in varying_keys([run.config for run in runs]) if runs else ():
        column = SettingColumn(name, tuple(flat.get(name) for flat in flats))
        if name not in NOT_SETTINGS and len({*column.values} - {None}) > 1:
            found.setdefault(_pattern(column), column)
    return list(found.values())


def _pattern(column: SettingColumn) -> tuple[int, ...]:
    """Pattern that settings share which always change together.

    Of few values it is the groups of trials with the same one. Numbers that differ in most trials
    differ together in any two settings that are drawn, so there it is their order.
    """
    distinct = list(dict.fromkeys(column.values))
    if column.is_numeric and 2 * len(distinct) > len(column.values):
        order = sorted(set(column.numbers))
        ranks = [-1 if x is None else order.index(x) for x in column.positions()]
        return min(tuple(ranks), tuple(len(order) - 1 - r if r >= 0 else -1 for r in ranks))
    return tuple(distinct.index(value) for value in column.values)


def with_objective(runs: Sequence[Run]) -> list[Run]:
    """Runs whose last report has an objective that means something: not collapsed or diverged."""
    return [
        run for run in runs if run.reports and shown_status(run) not in ("collapsed", "diverged")
    ]


def plot_slices(runs: Sequence[Run], *, metric: str) -> Figure:
    """Figure of the objective over each setting that varies, one panel a setting.

    A trial that collapsed or diverged is marked on the axis.
    """
    runs = [run for run in runs if run.reports]
    columns = setting_columns(runs)[:MAX_PANELS]
    across = 1 if is_narrow() else min(PANEL_COLUMNS, max(1, len(columns)))
    rows = max(1, math.ceil(len(columns) / across))
    figure, every = new_axes(9.6, 2.7 * rows, columns=across, rows=rows)
    for number, axes in enumerate(every):
        if number >= len(columns):
            axes.set_axis_off()
            continue
        column = columns[number]
        set_title(axes, column.name, y="" if number % across else metric)
        for run, x in zip(runs, column.positions(), strict=True):
            if x is not None:
                _draw_trial(axes, run, x)
        _format_axis(axes, column)
    return figure


def _draw_trial(axes: Axes, run: Run, x: float) -> None:
    status, value = shown_status(run), _value(run)
    if status in ("collapsed", "diverged"):
        axes.plot(
            x, 0.03, STATUS_MARKERS[status], color=STATUS_COLORS[status], markersize=5.5,
            markeredgewidth=0, transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
        return
    axes.plot(
        x, value, STATUS_MARKERS[status], color=STATUS_COLORS[status], markersize=5.5,
        markeredgewidth=0, alpha=0.85,
    )  # fmt: skip


def _format_axis(axes: Axes, column: SettingColumn) -> None:
    axes.margins(x=0.08)
    if not column.is_numeric:
        words = [format_value(word) for word in column.words()]
        crowded = sum(map(len, words)) > 26
        turned = {"rotation": 25, "ha": "right"} if crowded else {}
        axes.set_xticks(range(len(words)), words, **turned)
        axes.set_xlim(-0.5, len(words) - 0.5)
        return
    if column.is_log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(float(value))))


def plot_parallel_coordinates(runs: Sequence[Run], *, direction: Direction, metric: str) -> Figure:
    """Figure of the settings of every trial as a line over one axis a setting, from top to bottom.

    The last axis is the objective; the best trials are stressed.
    """
    runs = with_objective(runs)
    sign = -1 if direction == "maximize" else 1
    best = {run.id for run in sorted(runs, key=lambda run: sign * _value(run))[:NUM_BEST]}
    columns = setting_columns(runs)[:MAX_COORDINATES]
    columns.append(SettingColumn(metric, tuple(_value(run) for run in runs)))
    figure, (axes,) = new_axes(9.6, 0.9 + (0.72 if is_narrow() else 0.62) * len(columns))
    set_title(axes, f"Parallel coordinates, the best {min(NUM_BEST, len(runs))} trials in blue")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    places = [_shares(column) for column in columns]
    for number, run in sorted(enumerate(runs), key=lambda pair: pair[1].id in best):
        line = [
            (place[number], row) for row, place in enumerate(places) if place[number] is not None
        ]
        strong = run.id in best
        style: dict[str, Any] = {"color": STATUS_COLORS["completed"], "linewidth": 1.8}
        weak: dict[str, Any] = {"color": STATUS_COLORS["pruned"], "linewidth": 0.8, "alpha": 0.5}
        axes.plot(*np.transpose(np.array(line, float)), "-", **(style if strong else weak))
    for row, column in enumerate(columns):
        _draw_coordinate(axes, row, column)
    axes.set_ylim(len(columns) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([])
    if is_narrow():
        axes.set_yticks([])
    else:
        axes.set_yticks(range(len(columns)), [c.name for c in columns], color=INK, fontsize=SMALL)
    return figure


def _value(run: Run) -> float:
    return float(run.reports[-1]["objective"])


def _shares(column: SettingColumn) -> list[float | None]:
    """Positions of the values between the ends of the axis, in [0, 1]."""
    positions = column.positions()
    if column.is_log:
        positions = [None if x is None else math.log(x) for x in positions]
    known = [x for x in positions if x is not None]
    low, width = min(known), (max(known) - min(known)) or 1.0
    return [None if x is None else (x - low) / width for x in positions]


def _draw_coordinate(axes: Axes, row: int, column: SettingColumn) -> None:
    """Axis of one setting, with its ends or its words below it."""
    axes.plot((0, 1), (row, row), color=GRID, linewidth=1.2, zorder=0)
    halo = [withStroke(linewidth=3, foreground=PAPER)]
    style: dict[str, Any] = {"fontsize": SMALL, "color": MUTED, "va": "top", "path_effects": halo}
    if is_narrow():
        name = textwrap.shorten(column.name, 40)
        axes.text(0, row - 0.08, name, fontsize=SMALL, color=INK, va="bottom", path_effects=halo)
    if column.is_numeric:
        numbers = column.numbers
        whole = all(isinstance(value, int) for value in column.values if value is not None)
        low, high = min(numbers), max(numbers)
        ends = (int(low), int(high)) if whole else (low, high)
        axes.text(0, row + 0.06, format_value(ends[0]), ha="left", **style)
        axes.text(1, row + 0.06, format_value(ends[1]), ha="right", **style)
        return
    words = column.words()
    for number, word in enumerate(words):
        share = number / max(1, len(words) - 1)
        side = "left" if number == 0 else "right" if number == len(words) - 1 else "center"
        axes.text(share, row + 0.06, format_value(word), ha=side, **style)


def contour_settings(
    runs: Sequence[Run], ranked: Sequence[str] = ()
) -> tuple[SettingColumn, SettingColumn, list[Run]] | None:
    """Two numeric settings for a contour, and the trials that have both; None if there are none.

    Args:
        runs: trials.
        ranked: names of settings, the most important first.
    """
    runs = with_objective(runs)
    numeric = [column for column in setting_columns(runs) if column.is_numeric]
    rank = {name: number for number, name in enumerate(ranked)}
    numeric.sort(key=lambda column: rank.get(column.name, len(rank)))
    for i, first in enumerate(numeric):
        for second in numeric[i + 1 :]:
            pairs = list(zip(first.values, second.values, strict=True))
            kept = [n for n, pair in enumerate(pairs) if None not in pair]
            x, y = (
                SettingColumn(column.name, tuple(column.values[n] for n in kept))
                for column in (first, second)
            )
            enough = min(len(set(x.values)), len(set(y.values))) >= MIN_CONTOUR_VALUES
            if len({pairs[n] for n in kept}) >= MIN_CONTOUR_TRIALS and enough:
                return x, y, [runs[n] for n in kept]
    return None


def plot_contour(x: SettingColumn, y: SettingColumn, runs: Sequence[Run], *, metric: str) -> Figure:
    """Figure of the objective over two settings, interpolated linearly between the trials."""
    figure, (axes,) = new_axes(7.2, 4.2)
    set_title(axes, f"Contour of {metric}", x=x.name, y=y.name)
    axes.grid(visible=False)
    values = np.array([_value(run) for run in runs])
    points = np.transpose([np.array(column.numbers, float) for column in (x, y)])
    _, kept = np.unique(points, axis=0, return_index=True)
    scaled = [_shares(column) for column in (x, y)]
    placed = np.array(scaled, float)[:, kept]
    triangles = Triangulation(placed[0], placed[1]).triangles
    mesh = Triangulation(points[kept, 0], points[kept, 1], triangles)
    filled = axes.tricontourf(mesh, values[kept], levels=10, cmap="Blues")
    axes.plot(*np.transpose(points), "o", color=INK, markersize=3)
    _format_axis(axes, x)
    if y.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(float(value))))
    bar = figure.colorbar(filled, ax=axes, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=MUTED, labelsize=SMALL, length=0)
    return figure


def plot_timeline(runs: Sequence[Run]) -> Figure:
    """Figure of when each trial ran, from its first start to its end, by status."""
    start = min(run.started for run in runs)
    ends = [last_event_time(run) - start for run in runs]
    unit, divisor = ("hours", 3600.0) if max(ends) > 7200 else ("minutes", 60.0)
    figure, (axes,) = new_axes(9.6, min(6.0, 1.3 + 0.16 * len(runs)))
    set_title(axes, "Timeline", x=f"{unit} since the first trial began", y="trial")
    axes.grid(visible=True, axis="x", color=GRID, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    for row, (run, end) in enumerate(zip(runs, ends, strict=True)):
        begin = run.started - start
        axes.barh(
            row, max(end - begin, 0.0) / divisor, left=begin / divisor, height=0.7,
            color=STATUS_COLORS[shown_status(run)],
        )  # fmt: skip
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.set_xlim(0, max(max(ends), 1.0) / divisor * 1.01)
    if len(runs) <= MAX_NAMED_ROWS:
        axes.set_yticks(range(len(runs)), [run.label for run in runs], fontsize=SMALL - 1.5)
    statuses = [shown_status(run) for run in runs]
    status_legend(axes, [status for status in STATUS_ORDER if status in statuses])
    return figure


def plot_edf(values: Mapping[str, Sequence[float]], *, direction: Direction, metric: str) -> Figure:
    """Figure of empirical distribution functions: share of trials at least as bad as each value.

    Args:
        values: objectives of the trials, by the name of their line; none is empty.
        direction: direction of the objective.
        metric: name of the objective.
    """
    figure, (axes,) = new_axes(9.6, 3.4)
    set_title(axes, "Distribution of the objective", x=metric, y="share of trials")
    worse = "lower" if direction == "maximize" else "higher"
    for (name, found), (color, dashes) in zip(values.items(), line_styles(), strict=False):
        ordered = np.sort(np.asarray(found, float))
        shares = np.arange(1, len(ordered) + 1) / len(ordered)
        if direction == "minimize":
            shares = 1 - (shares - 1 / len(ordered))
        axes.step(ordered, shares, dashes, where="post", color=color, linewidth=1.8, label=name)
        axes.plot(ordered, shares, "o", color=color, markersize=3)
    axes.set_ylim(0, 1.03)
    axes.set_ylabel(f"share of trials with a {worse} value", fontsize=SMALL, color=MUTED)
    axes.legend(frameon=False, fontsize=SMALL, labelcolor=MUTED, loc="upper left")
    return figure
