"""Plots of a search: history, learning curves, compute, importance."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hpsearch.config.formatting import flatten, format_value
from hpsearch.reporting.importance import Importance
from hpsearch.reporting.leaderboard import Direction, Summary, leaderboard, shown_status, trials_of
from hpsearch.reporting.plot_style import (
    GRID,
    INK,
    MUTED,
    SMALL,
    STATUS_COLORS,
    STATUS_MARKERS,
    TASK_COLORS,
    EndLabel,
    annotate_empty,
    count_patches,
    draw_bars,
    end_labels,
    mark_stopped,
    new_axes,
    set_title,
    status_legend,
)
from hpsearch.reporting.text_tables import format_patches, format_percent
from hpsearch.tracking.event_log import Event
from hpsearch.tracking.run_state import Run

NUM_LABELED = 3
"""Number of top-ten trials with a label at the end of their curve."""
CURVES = {**TASK_COLORS, "mAP": INK}
"""Colors of the validation scores of a trial, by task."""


def plot_learning_curves(run: Run, *, metric: str = "val/mAP") -> Figure:
    """Figure of training loss with collapse value, and validation mAPs with their mean.

    Args:
        run: the trial.
        metric: objective, which is drawn in place of mAPs where the trial has none.
    """
    figure, (left, right) = new_axes(9.6, 3.4, columns=2)
    set_title(left, f"Training loss of {run.label}", x="patches seen")
    has_scores = not run.reports or any(f"val/{task}" in run.last for task in CURVES)
    set_title(right, "Validation mAP" if has_scores else metric, x="patches seen")
    if not run.reports:
        annotate_empty(left, "no report yet")
        annotate_empty(right, "no report yet")
        return figure
    _draw_loss(left, run)
    _draw_scores(right, run, CURVES if has_scores else {metric.removeprefix("val/"): INK})
    return figure


def plot_intermediate_values(
    runs: Sequence[Run], *, direction: Direction, metric: str = "val/mAP"
) -> Figure:
    """Figure of the objective over patches seen: the best, up to ten, against all others.

    The end of a collapsed or diverged trial is marked on the axis, because its guarded objective
    is the worst possible value and not informative.
    """
    figure, (axes,) = new_axes(9.6, 4.4)
    set_title(axes, "Learning curves", x="patches seen", y=metric)
    rows = [row for row in leaderboard(runs, direction=direction) if row.run.reports]
    if not rows:
        annotate_empty(axes, "no report yet")
        return figure
    best = [row.run for row in rows[:10] if row.status in ("completed", "running")]
    for row in reversed(rows):
        _draw_search_curve(axes, row.run, strong=row.run in best)
    count_patches(axes)
    ends = [(run, run.reports[-1]["objective"]) for run in best[:NUM_LABELED]]
    end_labels(axes, [EndLabel(run.seen, value, run.label, INK) for run, value in ends])
    strong = [Line2D([], [], color=STATUS_COLORS["completed"], linewidth=2.2, label="the best")]
    status_legend(axes, [row.status for row in rows], more=strong if best else ())
    return figure


def plot_optimization_history(
    runs: Sequence[Run], *, direction: Direction, metric: str = "val/mAP"
) -> Figure:
    """Figure of the objective of every trial in order of start, and the best completed so far."""
    figure, (axes,) = new_axes(9.6, 3.4)
    set_title(axes, "Optimization history", x="trial", y=metric)
    trials = [run for run in trials_of(runs) if run.reports]
    if not trials:
        annotate_empty(axes, "no report yet")
        return figure
    for run in trials:
        _mark_end(axes, run)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.015)
    line = _draw_best_so_far(axes, trials, better=max if direction == "maximize" else min)
    status_legend(axes, [shown_status(run) for run in trials], more=line)
    return figure


def _draw_loss(axes: Axes, run: Run) -> None:
    seen, values = run.curve("train/loss")
    color = STATUS_COLORS[shown_status(run)]
    axes.plot(seen, values, "-o", color=color, markersize=3, linewidth=1.8)
    collapse, labels = run.config.collapse_value, list[EndLabel]()
    red = STATUS_COLORS["collapsed"]
    if collapse is not None:  # a loss that changes has more than one
        axes.axhline(collapse, color=red, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.margins(y=0.12)
    count_patches(axes)
    if collapse is not None:
        text = f"collapse value {collapse:.3g}"
        labels.append(EndLabel(axes.get_xlim()[1], collapse, text, red))
    if values:
        labels.append(EndLabel(seen[-1], values[-1], f"loss {values[-1]:.3g}", color))
    end_labels(axes, labels)


def _draw_scores(axes: Axes, run: Run, curves: Mapping[str, str]) -> None:
    """Draw metrics ``val/NAME`` by their names, in the given colors."""
    labels = []
    for task, color in curves.items():
        name = f"val/{task}"
        points = [
            (r["seen"], r["metrics"][name])
            for r in _informative_reports(run)
            if name in r["metrics"]
        ]
        if not points:
            continue
        width = 2.4 if task == "mAP" else 1.4
        axes.plot(*np.transpose(points), "-o", color=color, markersize=3, linewidth=width)
        word, value = "mean" if task == "mAP" else task, points[-1][1]
        labels.append(EndLabel(points[-1][0], value, f"{word} {value:.3f}", color))
    if _is_stopped(run):
        mark_stopped(axes, run.seen, shown_status(run))
    count_patches(axes)
    axes.set_ylim(bottom=0)
    end_labels(axes, labels)


def _draw_search_curve(axes: Axes, run: Run, *, strong: bool) -> None:
    status = shown_status(run)
    points = [(report["seen"], report["objective"]) for report in _informative_reports(run)]
    color = STATUS_COLORS[status]
    width, alpha = (2.0, 0.95) if strong else (1.0, 0.5)
    if points:
        axes.plot(*np.transpose(points), color=color, linewidth=width, alpha=alpha)
    if _is_stopped(run):
        mark_stopped(axes, run.seen, status)
    else:
        size = 5 if strong else 4
        axes.plot(
            *points[-1], STATUS_MARKERS[status], color=color, markersize=size, markeredgewidth=0
        )


def _mark_end(axes: Axes, run: Run) -> None:
    status = shown_status(run)
    if _is_stopped(run):
        mark_stopped(axes, run.number, status)
        return
    value, color = run.reports[-1]["objective"], STATUS_COLORS[status]
    axes.plot(
        run.number, value, STATUS_MARKERS[status], color=color, markersize=6, markeredgewidth=0
    )


def _draw_best_so_far(
    axes: Axes, trials: list[Run], *, better: Callable[..., float]
) -> list[Line2D]:
    """Draw the best so far; returns the line for the legend, or None without completed trials."""
    best: list[tuple[int, float]] = []
    for run in trials:
        if shown_status(run) == "completed":
            value = run.reports[-1]["objective"]
            best.append((run.number, better(value, best[-1][1]) if best else value))
    if not best:
        return []
    last = best[-1][1]
    steps = [*best, (max(run.number for run in trials), last)]
    axes.step(*np.transpose(steps), where="post", color=INK, linewidth=1.4)
    end_labels(axes, [EndLabel(steps[-1][0], last, f"{last:.3f}", INK)])
    return [Line2D([], [], color=INK, linewidth=1.4, label="best completed so far")]


def _is_stopped(run: Run) -> bool:
    return shown_status(run) in ("collapsed", "diverged")


def _informative_reports(run: Run) -> Sequence[Event]:
    """Informative reports of a run: without the guarded last one of a failed run."""
    return run.reports[:-1] if _is_stopped(run) else run.reports


def plot_pareto_front(
    completed: Sequence[Run], front: Sequence[Run], metrics: Sequence[str]
) -> Figure:
    """Figure of completed trials by their objectives, with the Pareto front.

    Args:
        completed: trials with all objectives.
        front: trials of the front, in the order of the first objective.
        metrics: objectives; a panel shows the first against each of the others. With more than
            two, the front is no line in a panel, and its trials are only marked.
    """
    others = metrics[1:]
    figure, every = new_axes(4.8 * max(2, len(others)), 3.8, columns=len(others))
    on_front = {run.id for run in front}
    for axes, metric in zip(every, others, strict=True):
        set_title(axes, "" if axes is not every[0] else "Pareto front", x=metrics[0], y=metric)
        axes.grid(visible=True, axis="x", color=GRID, linewidth=0.8)
        points = {run.id: (run.reports[-1]["objective"], run.last[metric]) for run in completed}
        rest = [point for name, point in points.items() if name not in on_front]
        if rest:
            axes.plot(*np.transpose(rest), "o", color=STATUS_COLORS["pruned"], **SMALL_MARKER)
        best = [points[run.id] for run in front]
        line = "-" if len(others) == 1 else "none"
        axes.plot(
            *np.transpose(best), "o", color=STATUS_COLORS["completed"], linestyle=line,
            linewidth=1.2, **SMALL_MARKER,
        )  # fmt: skip
        axes.margins(0.08)
        for run in front[:MAX_LABELED_FRONT]:
            axes.annotate(
                run.label, points[run.id], color=INK, fontsize=SMALL, xytext=(5, 5),
                textcoords="offset points",
            )  # fmt: skip
    return figure


MAX_LABELED_FRONT = 12
"""Number of trials of the Pareto front with a label."""
SMALL_MARKER: dict[str, Any] = {"markersize": 6, "markeredgewidth": 0}
MAX_BARS = 12
"""Maximum number of settings in the figure of importance."""
MAX_LABELED = 60
"""Number of trials above which only failed ones are labeled."""


def plot_collapse_map(runs: Sequence[Run]) -> Figure:
    """Figure of trial statuses by patches per batch and learning rate, with a panel per optimizer.

    Learning rates of different optimizers are not comparable, hence the panels. If the sampler
    draws K views of each point, the marker is labeled with K.
    """
    trials = trials_of(runs)
    kinds = sorted({run.config.optimizer.kind for run in trials}) or ["no trial yet"]
    figure, every = new_axes(4.8 * max(2, len(kinds)), 4.2, columns=len(kinds))
    for axes, kind in zip(every, kinds, strict=True):
        own = [run for run in trials if run.config.optimizer.kind == kind]
        set_title(axes, format_value(kind), x="patches per batch (label: K)", y="learning rate")
        if own:
            _draw_map(axes, own, dense=len(trials) > MAX_LABELED)
        else:
            annotate_empty(axes, "no trials to show")
    return figure


def plot_importance(found: Importance) -> Figure:
    """Figure of the settings with an effect on the objective: shares in [0, 1] with intervals."""
    ranked = found.shown[:MAX_BARS][::-1]
    labels = [
        f"{format_percent(e.share)} ({100 * e.low:.0f} … {format_percent(e.high)})" for e in ranked
    ]
    return draw_bars(
        "Importance: share of the differences between trials, with 95 % intervals",
        [e.setting for e in ranked],
        [e.share for e in ranked],
        labels,
        [STATUS_COLORS["completed"]] * len(ranked),
        bounds=[(e.low, e.high) for e in ranked],
    )


def plot_compute_usage(totals: Summary) -> Figure:
    """Figure of patches trained, lost to failures, and saved by pruning and collapse detection.

    Zero values have no bar.
    """
    parts = [
        ("trained", totals.trained - totals.lost_to_failures, STATUS_COLORS["completed"]),
        ("lost to failed trials", totals.lost_to_failures, STATUS_COLORS["failed"]),
        ("trained again after a crash", totals.retrained_patches, STATUS_COLORS["interrupted"]),
        ("saved by pruning", totals.saved_by_pruning, STATUS_COLORS["pruned"]),
        ("saved by stopping collapse", totals.saved_by_detection, STATUS_COLORS["collapsed"]),
    ]
    parts = [part for number, part in enumerate(parts) if number == 0 or part[1]][::-1]
    whole = totals.budget or 1
    labels = [f"{format_percent(count / whole)} · {format_patches(count)}" for _, count, _ in parts]
    heading = f"Compute: {format_patches(totals.budget)} patches if every trial ran to the end"
    sizes = [float(count) for _, count, _ in parts]
    return draw_bars(heading, [n for n, _, _ in parts], sizes, labels, [c for *_, c in parts])


def _draw_map(axes: Axes, runs: list[Run], *, dense: bool) -> None:
    for run in runs:
        flat, status = flatten(run.config), shown_status(run)
        x, y = run.config.sampler.patches, run.config.optimizer.lr
        style = {
            "color": STATUS_COLORS[status],
            "markersize": 8,
            "markeredgewidth": 0,
            "alpha": 0.85,
        }
        axes.plot(x, y, STATUS_MARKERS[status], **style)
        if "sampler.views" in flat and (not dense or status in ("collapsed", "diverged")):
            offset = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{flat['sampler.views']}", (x, y), color=MUTED, fontsize=7, **offset)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(float(value))))
    _few_ticks(axes, sorted({run.config.sampler.patches for run in runs}))
    status_legend(axes, [shown_status(run) for run in runs])


def _few_ticks(axes: Axes, sizes: list[int]) -> None:
    """Set ticks at the batch sizes, or at powers of two if there are many."""
    if len(sizes) > 6:
        low, high = math.floor(math.log2(sizes[0])), math.ceil(math.log2(sizes[-1]))
        sizes = [2**power for power in range(low, high + 1)]
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
