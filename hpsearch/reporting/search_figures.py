"""Figures of a search report, with alternative texts and captions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from hpsearch.reporting import search_plots
from hpsearch.reporting.leaderboard import Direction, Summary, leaderboard, summarize
from hpsearch.reporting.text_tables import format_duration
from hpsearch.tracking.run_state import Run


class ReportFigure(NamedTuple):
    """Figure with its alternative text and caption."""

    name: str
    """Name of the PNG file: letters and dashes."""
    figure: Figure
    alt: str
    caption: str


MAX_SHOWN = ("val/verification", "val/matching", "val/retrieval", "val/mAP")
"""Scores in the alternative text of the best trial."""


def search_pictures(
    runs: Sequence[Run],
    *,
    direction: Direction,
    budget: int,
    metric: str = "val/mAP",
    importances: Mapping[str, float] | None = None,
) -> list[ReportFigure]:
    """All figures of the runs of a search, in the order of the report.

    Args:
        budget: patches seen by a complete trial.
        importances: share of the objective's variance explained by each setting, if known.
    """
    totals = summarize(runs, budget=budget)
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


def _curves(runs: Sequence[Run], *, direction: Direction, metric: str) -> ReportFigure:
    return ReportFigure(
        "learning-curves",
        search_plots.plot_intermediate_values(runs, direction=direction, metric=metric),
        f"Line chart of {metric} over patches seen, one line per trial.",
        "The ten best trials against those that were stopped. Trials that collapsed or diverged "
        "are marked on the axis where they were stopped.",
    )


def _winning_run(run: Run) -> ReportFigure:
    last = ", ".join(
        f"{k.removeprefix('val/')} {v:.3f}" for k, v in run.last.items() if k in MAX_SHOWN
    )
    return ReportFigure(
        "best-trial",
        search_plots.plot_learning_curves(run),
        f"Two line charts of trial {run.label} over patches seen: training loss and validation "
        f"mAP. At the last report: {last or 'no score'}.",
        f"Trial {run.label}. The collapse value is the loss of an encoder that maps every patch "
        "to one point.",
    )


def _history(runs: Sequence[Run], *, direction: Direction, metric: str) -> ReportFigure:
    return ReportFigure(
        "trial-by-trial",
        search_plots.plot_optimization_history(runs, direction=direction, metric=metric),
        f"Scatter chart of the last {metric} of each trial in the order of their start.",
        "The last report of every trial. Pruned trials are lower partly because they were trained "
        "on fewer patches.",
    )


def _importance(importances: Mapping[str, float]) -> ReportFigure:
    ranked = sorted(importances.items(), key=lambda item: -item[1])[:3]
    ranking = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked)
    return ReportFigure(
        "importance",
        search_plots.plot_importance(importances),
        f"Bar chart of the importance of settings. The first: {ranking}.",
        "Which settings the objective depended on, within the ranges that were searched.",
    )


def _collapse(runs: Sequence[Run], totals: Summary) -> ReportFigure:
    return ReportFigure(
        "collapse-map",
        search_plots.plot_collapse_map(runs),
        "Scatter chart of patches per batch against learning rate, with the status of each trial; "
        f"{totals.collapsed} of {totals.trials} collapsed.",
        f"Collapsed trials{'' if totals.collapsed else ': none'}. The number at a "
        "marker is K, the views of each point in a batch.",
    )


def _compute(totals: Summary) -> ReportFigure:
    return ReportFigure(
        "compute",
        search_plots.plot_compute_usage(totals),
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
