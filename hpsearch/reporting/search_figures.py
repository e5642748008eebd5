"""Figures of a search report, with alternative texts and captions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

from matplotlib.figure import Figure

from hpsearch.errors import list_names
from hpsearch.reporting import search_plots
from hpsearch.reporting.importance import Importance, importance
from hpsearch.reporting.leaderboard import (
    Direction,
    Summary,
    leaderboard,
    shown_status,
    summarize,
    trials_of,
)
from hpsearch.reporting.plot_style import narrow_figures
from hpsearch.reporting.text_tables import format_duration, format_percent
from hpsearch.tracking.run_state import Run


@dataclass(frozen=True)
class ReportFigure:
    """Figure with its alternative text and caption, drawn when it is first needed."""

    name: str
    """Name of the PNG file: letters and dashes."""
    draw: Callable[[], Figure]
    """Function that draws the figure, wide or within ``narrow_figures``."""
    alt: str
    caption: str
    further: bool = False
    """True for a figure that the report page shows only on request."""

    @cached_property
    def figure(self) -> Figure:
        """Figure at its full width."""
        return self.draw()

    @cached_property
    def narrow(self) -> Figure:
        """Figure for a page of 400 pixels."""
        with narrow_figures():
            return self.draw()


class PlottedObjective(NamedTuple):
    """Metric that a search optimizes, and its direction."""

    metric: str
    direction: Direction


class SearchFigures(NamedTuple):
    """Figures of a search in the order of the report, and reasons for those that are left out."""

    figures: list[ReportFigure]
    omitted: list[str]
    """Sentences, each with the name of a figure and the reason why it would show nothing."""
    examples: Sequence[ReportFigure] = ()
    """Figures of what the best trial's model does with patches."""


MAX_SHOWN = ("val/verification", "val/matching", "val/retrieval", "val/mAP")
"""Scores in the alternative text of the best trial."""


def search_pictures(
    runs: Sequence[Run],
    *,
    objectives: Sequence[PlottedObjective],
    budget: int,
    report_every: int,
    front: Sequence[Run] = (),
) -> SearchFigures:
    """All figures of the runs of a search that show something.

    Args:
        runs: trials and baselines.
        objectives: objectives of the search; the first selects the winner.
        budget: patches seen by a complete trial.
        report_every: patches between two reports.
        front: Pareto front, if there are several objectives.
    """
    totals = summarize(runs, budget=budget)
    found = importance(runs, report_every=report_every)
    drawn = [
        *(_curves(runs, objective, rank) for rank, objective in enumerate(objectives)),
        _winning_run(runs, objectives[0]),
        *(_history(runs, objective, rank) for rank, objective in enumerate(objectives)),
        *([_pareto_front(runs, front, objectives)] if len(objectives) > 1 else []),
        _importance(found, objectives[0].metric),
        _collapse(runs, totals),
        _compute(totals),
    ]
    return SearchFigures(
        figures=[one for one in drawn if isinstance(one, ReportFigure)],
        omitted=[one for one in drawn if isinstance(one, str)],
    )


def _by_objective(runs: Sequence[Run], metric: str) -> list[Run]:
    """Runs whose reports have a further metric in place of the first objective."""
    return [
        replace(
            run,
            reports=tuple(
                {**report, "objective": report["metrics"][metric]}
                for report in run.reports
                if metric in report["metrics"]
            ),
        )
        for run in runs
    ]


def _suffix(metric: str, rank: int) -> str:
    """Ending of a figure's name; empty for the first objective."""
    return f"-{metric.replace('/', '-').replace('_', '-')}" if rank else ""


def _curves(runs: Sequence[Run], objective: PlottedObjective, rank: int) -> ReportFigure | str:
    metric, direction = objective
    runs = _by_objective(runs, metric) if rank else runs
    if all(len(run.reports) < 2 for run in trials_of(runs)):
        return f"Learning curves of {metric}: no trial has two reports."
    return ReportFigure(
        f"learning-curves{_suffix(metric, rank)}",
        partial(search_plots.plot_intermediate_values, runs, direction=direction, metric=metric),
        f"Line chart of {metric} over patches seen, one line per trial.",
        f"The best trials by {metric}, up to ten, against the others. Trials that collapsed "
        "or diverged are marked on the axis where they were stopped.",
    )


def _winning_run(runs: Sequence[Run], objective: PlottedObjective) -> ReportFigure | str:
    rows = leaderboard(runs, direction=objective.direction, limit=1)
    run = rows[0].run if rows else None
    if run is None or len(run.reports) < 2:
        return "Curves of the best trial: it has fewer than two reports."
    last = ", ".join(
        f"{k.removeprefix('val/')} {v:.3f}"
        for k, v in run.last.items()
        if k in (*MAX_SHOWN, objective.metric)
    )
    return ReportFigure(
        "best-trial",
        partial(search_plots.plot_learning_curves, run, metric=objective.metric),
        f"Two line charts of trial {run.label} over patches seen: training loss and validation "
        f"scores. At the last report: {last or 'no score'}.",
        f"Trial {run.label}. The collapse value is the loss of an encoder that maps every patch "
        f"to one point.{_loss_above_collapse(run)}",
    )


def _loss_above_collapse(run: Run) -> str:
    """Explanation of a loss that ends above the collapse value; empty if it does not."""
    loss, collapse = run.metric("train/loss"), run.config.collapse_value
    if loss is None or collapse is None or loss <= collapse or shown_status(run) == "collapsed":
        return ""
    return (
        f" The loss ends above it, at {loss:.3g}: in many of the triplets that the trial learns "
        "from, the negative is nearer than the positive, as with mining of hard triplets. This is "
        f"not a collapse, in which the loss would stay at {collapse:.3g}; its scores show "
        "whether the trial learns."
    )


def _history(runs: Sequence[Run], objective: PlottedObjective, rank: int) -> ReportFigure | str:
    metric, direction = objective
    runs = _by_objective(runs, metric) if rank else runs
    if sum(bool(run.reports) for run in trials_of(runs)) < 2:
        return f"Optimization history of {metric}: fewer than two trials have reported."
    return ReportFigure(
        f"trial-by-trial{_suffix(metric, rank)}",
        partial(search_plots.plot_optimization_history, runs, direction=direction, metric=metric),
        f"Scatter chart of the last {metric} of each trial in the order of their start.",
        "The last report of every trial. Pruned trials are worse partly because they were trained "
        "on fewer patches."
        if any(run.status == "pruned" for run in runs)
        else "The last report of every trial.",
    )


def _pareto_front(
    runs: Sequence[Run], front: Sequence[Run], objectives: Sequence[PlottedObjective]
) -> ReportFigure | str:
    metrics = [objective.metric for objective in objectives]
    completed = [run for run in trials_of(runs) if shown_status(run) == "completed"]
    if len(completed) < 2:
        return "Pareto front: fewer than two trials have completed."
    labels = list_names([run.label for run in front], limit=8)
    return ReportFigure(
        "pareto-front",
        partial(search_plots.plot_pareto_front, completed, front, metrics),
        f"Scatter chart of {metrics[0]} against {' and '.join(metrics[1:])} of every completed "
        f"trial. On the Pareto front: {labels}.",
        f"Completed trials by their last report. No other trial is at least as good in every "
        f"objective as one on the Pareto front: {labels}.",
    )


def _importance(found: Importance, metric: str) -> ReportFigure | str:
    if found.missing:
        return f"Importance of settings: {found.missing}."
    ranked = [f"{effect.setting} {format_percent(effect.share)}" for effect in found.shown]
    caption = (
        f"Share of the differences in {metric} (as ranks) that each setting explains by itself, "
        f"within the ranges that were searched, over {found.configurations} configurations after "
        f"{found.seen:,} patches, which all completed and pruned trials have seen."
    )
    if found.uncertain:
        caption += f" Not distinguished from chance: {', '.join(found.uncertain)}."
    return ReportFigure(
        "importance",
        partial(search_plots.plot_importance, found),
        "Bar chart of the importance of settings with 95 % intervals. The first: "
        f"{list_names(ranked, limit=3)}.",
        caption,
    )


def _collapse(runs: Sequence[Run], totals: Summary) -> ReportFigure | str:
    if not totals.collapsed + totals.diverged:
        return "Where trials collapsed: none did."
    if len({run.config.sampler.patches for run in trials_of(runs)}) < 2:
        return "Where trials collapsed: all trials have one batch size."
    return ReportFigure(
        "collapse-map",
        partial(search_plots.plot_collapse_map, runs),
        "Scatter chart of patches per batch against learning rate, with the status of each trial; "
        f"{totals.collapsed} of {totals.trials} collapsed.",
        "Collapsed and diverged trials by batch and learning rate. The number at a marker is K, "
        "the views of each point in a batch.",
    )


def _compute(totals: Summary) -> ReportFigure | str:
    unusual = totals.saved_by_pruning + totals.saved_by_detection + totals.lost_to_failures
    if not unusual + totals.retrained_patches:
        return "Compute: nothing was saved, lost or trained again."
    return ReportFigure(
        "compute",
        partial(search_plots.plot_compute_usage, totals),
        f"Bar chart: {totals.trained} patches trained, {totals.saved_by_pruning} saved by pruning, "
        f"{totals.saved_by_detection} saved by stopping collapsed and diverged trials, "
        f"{totals.lost_to_failures} lost to failures, {totals.retrained_patches} trained again, of "
        f"{totals.budget}.",
        "Patches trained, lost and saved, as shares of the budget of all trials. "
        + _sharing(totals),
    )


def _sharing(totals: Summary) -> str:
    if not totals.cache_seconds_computed and not totals.cache_seconds_saved:
        return ""
    return (
        "Computing shared denoisers and warm starts took "
        f"{format_duration(totals.cache_seconds_computed)} "
        f"in addition; computing them for each trial would have taken "
        f"{format_duration(totals.cache_seconds_saved)} more."
    )
