"""Figures of finished runs: losses with their stages, a measure over a setting, a map of failures.

A list of runs names its figures in ``FIGURES``; ``hpsearch reproduce`` draws each from the rows of
the table, one SVG file per figure.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from hpsearch.config import FixedSteps
from hpsearch.reporting.claims import Measure, cell_of, measured
from hpsearch.reporting.plot_style import (
    GROUP_COLORS,
    INK,
    MUTED,
    SMALL,
    STATUS_COLORS,
    TASK_COLORS,
    count_patches,
    new_axes,
    new_figure,
    set_title,
    style_axes,
)
from hpsearch.tracking.run_state import RunStatus
from hpsearch.tracking.run_table import Row, config_of


@dataclass(frozen=True)
class LossFigure:
    """Training loss of each arm over patches seen, a line per seed, with the stage below it.

    Example:
        >>> LossFigure("stages", "Loss and stage", arms=("small", "stepped")).draw([]) is None
        True
    """

    name: str
    """Name of its file, without suffix."""
    title: str
    arms: tuple[str, ...]
    """Names of the arms, a column of axes each."""

    def draw(self, rows: Sequence[Row]) -> Figure | None:
        """Draw the arms that have rows; None if none has."""
        found = {arm: [row for row in rows if row.name == arm] for arm in self.arms}
        found = {arm: runs for arm, runs in found.items() if runs}
        if not found:
            return None
        across = min(3, len(found))
        down = -(-len(found) // across)
        figure = new_figure(3.6 * across, 3.3 * down + 0.4)
        grid = figure.add_gridspec(2 * down, across, height_ratios=[3, 1] * down)
        figure.suptitle(self.title, x=0.01, ha="left", fontweight="bold", color=INK)
        for i, (arm, runs) in enumerate(found.items()):
            loss = figure.add_subplot(grid[2 * (i // across), i % across])
            stage = figure.add_subplot(grid[2 * (i // across) + 1, i % across])
            _draw_losses(loss, arm, runs)
            _draw_stages(stage, runs)
        return figure


def _draw_losses(axes: Axes, arm: str, runs: Sequence[Row]) -> None:
    style_axes(axes)
    set_title(axes, arm.split(" · ")[0], y="loss ÷ collapse value")
    axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=":")
    for row, color in zip(runs, GROUP_COLORS, strict=False):
        losses = [None if loss is None else loss / row.loss_scale for loss in row.trace["loss"]]
        label = f"seed {row.seed}" + (f", {row.status}" if row.status != "completed" else "")
        axes.plot(_seen(row), _numbers(losses), color=color, linewidth=1, label=label)
    axes.set_ylim(0.4, 1.6)
    axes.legend(frameon=False, fontsize=SMALL, labelcolor=MUTED, loc="upper right")
    _limit_patches(axes, runs)


def _draw_stages(axes: Axes, runs: Sequence[Row]) -> None:
    style_axes(axes)
    set_title(axes, "", x="patches seen", y="stage")
    for row, color in zip(runs, GROUP_COLORS, strict=False):
        axes.step(_seen(row), _stages(row), color=color, linewidth=1, where="pre")
    last = max(stage for row in runs for stage in _stages(row))
    axes.set_ylim(0.5, max(2, last) + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _limit_patches(axes, runs)


def _limit_patches(axes: Axes, runs: Sequence[Row]) -> None:
    """Format the x axis as patches seen, up to the budget even if all runs ended early."""
    axes.set_xlim(0, max(row.config["patches"] for row in runs))
    count_patches(axes)


def _stages(row: Row) -> list[float]:
    """Stage of each window, from 1; that of fixed steps follows from the budget."""
    config = config_of(row)
    if config is None or not isinstance(config.sampler, FixedSteps):
        return [stage + 1 for stage in _numbers(row.trace["stage"])]
    starts = [share * config.patches for share in config.sampler.milestones]
    return [1.0 + sum(seen > start for start in starts) for seen in _seen(row)]


def _seen(row: Row) -> list[float]:
    return _numbers(row.trace["seen"])


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


@dataclass(frozen=True)
class ArmsFigure:
    """Measures of arms that differ in one setting, over its values: mean and range of the seeds.

    Example:
        >>> figure = ArmsFigure("percentile", "Mining", x="q", arms={0: "q 0", 2: "q 2"})
        >>> figure.draw([]) is None
        True
    """

    name: str
    title: str
    x: str
    """Label of the axis: name of the setting, and its unit."""
    arms: Mapping[float, str]
    """Arm of each value."""
    measures: tuple[Measure, ...] = ("mAP",)

    def draw(self, rows: Sequence[Row]) -> Figure | None:
        """Draw the values whose arms have rows; None if none has."""
        runs = {x: [row for row in rows if row.name == arm] for x, arm in self.arms.items()}
        if not any(runs.values()):
            return None
        figure, (axes,) = new_axes(6.4, 4.0)
        set_title(axes, self.title, x=self.x, y="test mAP, mean and range of seeds")
        for measure, color in zip(self.measures, GROUP_COLORS, strict=False):
            self._draw_measure(axes, measure, TASK_COLORS.get(measure, color), runs)
        axes.legend(frameon=False, fontsize=SMALL, labelcolor=MUTED)
        return figure

    def _draw_measure(
        self, axes: Axes, measure: Measure, color: str, runs: Mapping[float, Sequence[Row]]
    ) -> None:
        values = {
            x: [value for row in found if (value := measured(row, measure)) is not None]
            for x, found in runs.items()
        }
        points = {x: found for x, found in values.items() if found}
        axes.plot(
            list(points), [statistics.fmean(v) for v in points.values()], "o-", color=color,
            linewidth=1.4, markersize=4, label=measure,
        )  # fmt: skip
        for x, found in points.items():
            axes.plot((x, x), (min(found), max(found)), color=color, linewidth=1.2)


@dataclass(frozen=True)
class MapFigure:
    """Map of the settings in names of arms: one cell per run, with its test mAP or its end.

    Example:
        >>> MapFigure("map", "Collapse", cells="* · *", rows=1).draw([]) is None
        True
    """

    name: str
    title: str
    cells: str
    """Pattern of the arms; each ``*`` stands for the value of one setting."""
    rows: int
    """Number of the first settings, whose values together are the rows; the rest are columns."""

    def draw(self, rows: Sequence[Row]) -> Figure | None:
        """Draw the cells that have rows; None if none has. The first row of a cell counts."""
        ends: dict[tuple[str, ...], Row] = {}
        for row in rows:
            if (cell := cell_of(self.cells, row.name)) is not None:
                ends.setdefault(cell, row)
        if not ends:
            return None
        downs = list(dict.fromkeys(" · ".join(cell[: self.rows]) for cell in sorted(ends)))
        overs = sorted({cell[self.rows :] for cell in ends}, key=_by_number)
        figure, (axes,) = new_axes(3.6 + 0.62 * len(overs), 1.6 + 0.24 * len(downs))
        set_title(axes, f"{self.title}: test mAP, or how the run ended")
        for cell, row in ends.items():
            x, y = overs.index(cell[self.rows :]), downs.index(" · ".join(cell[: self.rows]))
            _draw_cell(axes, x, y, row)
        axes.set_xlim(-0.5, len(overs) - 0.5)
        axes.set_ylim(len(downs) - 0.5, -0.5)
        axes.set_yticks(range(len(downs)), downs, fontsize=SMALL)
        words = ["\n".join(" ".join(over).split()) for over in overs]  # a cell is a word wide
        axes.set_xticks(range(len(overs)), words, fontsize=SMALL)
        axes.grid(visible=False)
        _legend(axes, {cast(RunStatus, row.status) for row in ends.values()})
        return figure


def _by_number(cell: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
    """Sort key: values by the number at their beginning, then by their text."""
    words = [(part.split()[0] if part.split() else "", part) for part in cell]
    return tuple((float(word) if word.isdigit() else float("inf"), part) for word, part in words)


def _draw_cell(axes: Axes, x: int, y: int, row: Row) -> None:
    status = cast(RunStatus, row.status)
    axes.add_patch(
        Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=STATUS_COLORS[status],
                  alpha=0.25 if status == "completed" else 0.85, linewidth=0)
    )  # fmt: skip
    text = f"{measured(row, 'mAP'):.2f}" if status == "completed" else status
    color = INK if status == "completed" else "white"
    axes.text(x, y, text, ha="center", va="center", fontsize=SMALL - 2, color=color)


def _legend(axes: Axes, statuses: set[RunStatus]) -> None:
    marks = [
        Line2D([], [], color=STATUS_COLORS[status], marker="s", linestyle="none", label=status)
        for status in STATUS_COLORS
        if status in statuses
    ]
    axes.legend(
        handles=marks, frameon=False, fontsize=SMALL, labelcolor=MUTED, ncols=4,
        loc="upper left", bbox_to_anchor=(0, -0.12),
    )  # fmt: skip


RunFigure = LossFigure | ArmsFigure | MapFigure
