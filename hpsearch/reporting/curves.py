"""Curves over patches seen and over trials: one run alone, and all runs of a search together."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hpsearch.reporting.style import (
    COLOURS,
    INK,
    MARKERS,
    TASKS,
    at_the_edge,
    count_patches,
    end_labels,
    entitle,
    panels,
    say,
    status_key,
)
from hpsearch.reporting.tables import Direction, leaderboard, outcome, trials_of
from hpsearch.tracking.ledger import Event
from hpsearch.tracking.runs import Run

NAMED = 3
"""Trials of the top ten that get their number at the end of their curve."""


def learning_curves(run: Run) -> Figure:
    """Training loss beside its collapse value, and the three validation mAPs with their mean."""
    figure, (left, right) = panels(9.6, 3.4, columns=2)
    entitle(left, f"Training loss of {run.label}", x="patches seen")
    entitle(right, "Validation mAP", x="patches seen")
    if not run.reports:
        say(left, "no report yet")
        say(right, "no report yet")
        return figure
    _loss(left, run)
    _scores(right, run)
    return figure


def search_curves(runs: Sequence[Run], *, direction: Direction, metric: str = "val/mAP") -> Figure:
    """Objective over patches seen: the ten best against all others.

    A collapsed or diverged trial is marked on the axis where it was stopped, because its guarded
    objective there is the worst there is and says nothing of how it was doing.
    """
    figure, (axes,) = panels(9.6, 4.4)
    entitle(axes, "Learning curves", x="patches seen", y=metric)
    rows = [row for row in leaderboard(runs, direction=direction) if row.run.reports]
    if not rows:
        say(axes, "no report yet")
        return figure
    best = [row.run for row in rows[:10] if row.status in ("completed", "running")]
    for row in reversed(rows):
        _search_curve(axes, row.run, strong=row.run in best)
    count_patches(axes)
    named = [(run.reports[-1]["objective"], run.label, INK) for run in best[:NAMED]]
    end_labels(axes, named)
    strong = [Line2D([], [], color=COLOURS["completed"], linewidth=2.2, label="the ten best")]
    status_key(axes, [row.status for row in rows], more=strong if best else ())
    return figure


def history(runs: Sequence[Run], *, direction: Direction, metric: str = "val/mAP") -> Figure:
    """Objective of every trial in the order they started, and the best completed so far."""
    figure, (axes,) = panels(9.6, 3.4)
    entitle(axes, "Trial by trial", x="trial", y=metric)
    trials = [run for run in trials_of(runs) if run.reports]
    if not trials:
        say(axes, "no report yet")
        return figure
    for run in trials:
        _mark(axes, run)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.015)
    line = _best_so_far(axes, trials, better=max if direction == "maximize" else min)
    status_key(axes, [outcome(run) for run in trials], more=line)
    return figure


def _loss(axes: Axes, run: Run) -> None:
    seen, values = run.curve("train/loss")
    colour = COLOURS[outcome(run)]
    axes.plot(seen, values, "-o", color=colour, markersize=3, linewidth=1.8)
    collapse = run.config.loss.collapse_value
    axes.axhline(collapse, color=COLOURS["collapsed"], linewidth=1.2, linestyle=(0, (4, 3)))
    axes.margins(y=0.12)
    count_patches(axes)
    labels = [(collapse, f"collapse value {collapse:.3g}", COLOURS["collapsed"])]
    if values:
        labels.append((values[-1], f"loss {values[-1]:.3g}", colour))
    end_labels(axes, labels)


def _scores(axes: Axes, run: Run) -> None:
    labels = []
    for task, colour in [*TASKS.items(), ("mAP", INK)]:
        name = f"val/{task}"
        points = [(r["seen"], r["metrics"][name]) for r in _told(run) if name in r["metrics"]]
        if not points:
            continue
        width = 2.4 if task == "mAP" else 1.4
        axes.plot(*np.transpose(points), "-o", color=colour, markersize=3, linewidth=width)
        word, value = "mean" if task == "mAP" else task, points[-1][1]
        labels.append((value, f"{word} {value:.3f}", colour))
    if _stopped(run):
        at_the_edge(axes, run.seen, outcome(run))
    count_patches(axes)
    axes.set_ylim(bottom=0)
    end_labels(axes, labels)


def _search_curve(axes: Axes, run: Run, *, strong: bool) -> None:
    status = outcome(run)
    points = [(report["seen"], report["objective"]) for report in _told(run)]
    colour = COLOURS[status]
    width, alpha = (2.0, 0.95) if strong else (1.0, 0.5)
    if points:
        axes.plot(*np.transpose(points), color=colour, linewidth=width, alpha=alpha)
    if _stopped(run):
        at_the_edge(axes, run.seen, status)
    else:
        size = 5 if strong else 4
        axes.plot(*points[-1], MARKERS[status], color=colour, markersize=size, markeredgewidth=0)


def _mark(axes: Axes, run: Run) -> None:
    status = outcome(run)
    if _stopped(run):
        at_the_edge(axes, run.number, status)
        return
    value, colour = run.reports[-1]["objective"], COLOURS[status]
    axes.plot(run.number, value, MARKERS[status], color=colour, markersize=6, markeredgewidth=0)


def _best_so_far(axes: Axes, trials: list[Run], *, better: Callable[..., float]) -> list[Line2D]:
    """Draw the steps; the line for the key, or none if nothing has completed."""
    best: list[tuple[int, float]] = []
    for run in trials:
        if outcome(run) == "completed":
            value = run.reports[-1]["objective"]
            best.append((run.number, better(value, best[-1][1]) if best else value))
    if not best:
        return []
    last = best[-1][1]
    steps = [*best, (max(run.number for run in trials), last)]
    axes.step(*np.transpose(steps), where="post", color=INK, linewidth=1.4)
    end_labels(axes, [(last, f"{last:.3f}", INK)])
    return [Line2D([], [], color=INK, linewidth=1.4, label="best completed so far")]


def _stopped(run: Run) -> bool:
    return outcome(run) in ("collapsed", "diverged")


def _told(run: Run) -> Sequence[Event]:
    """Reports that say how a run was doing: not the guarded last one of a run that failed."""
    return run.reports[:-1] if _stopped(run) else run.reports
