"""Figures of a search report, with alternative texts and captions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from hpsearch.reporting import search_plots
from hpsearch.reporting.leaderboard import Direction, Summary, leaderboard, summarize
from hpsearch.reporting.text_tables import format_duration
from hpsearch.tracking.run_state import Run


class ReportFigure(NamedTuple):
    """A figure with the words for those who do not see it and for those who do."""

    name: str
    """Letters and dashes; the name of its PNG file."""
    figure: Figure
    alt: str
    caption: str


MAX_SHOWN = ("val/verification", "val/matching", "val/retrieval", "val/mAP")
"""Scores that the words for the best trial give."""


def search_pictures(
    runs: Sequence[Run],
    *,
    direction: Direction,
    budget: int,
    metric: str = "val/mAP",
    importances: Mapping[str, float] | None = None,
) -> list[ReportFigure]:
    """All figures that follow from the runs of a search, in the order of the report.

    Args:
        budget: patches that a full trial sees.
        importances: share of the objective's spread that each setting explains, if it is known.
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
        f"Line chart of {metric} over patches seen, one line a trial.",
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
        f"Trial {run.label}. An encoder that maps every patch to one point pays the collapse "
        "value.",
    )


def _history(runs: Sequence[Run], *, direction: Direction, metric: str) -> ReportFigure:
    return ReportFigure(
        "trial-by-trial",
        search_plots.plot_optimization_history(runs, direction=direction, metric=metric),
        f"Scatter chart of the last {metric} of each trial in the order of their start.",
        "The last report of every trial. Marks of pruned trials are lower also because they were "
        "trained on fewer patches.",
    )


def _importance(importances: Mapping[str, float]) -> ReportFigure:
    ranked = sorted(importances.items(), key=lambda item: -item[1])[:3]
    words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked)
    return ReportFigure(
        "importance",
        search_plots.plot_importance(importances),
        f"Bar chart of the importance of settings. The first: {words}.",
        "Which settings the objective depended on, within the ranges that were searched.",
    )


def _collapse(runs: Sequence[Run], totals: Summary) -> ReportFigure:
    return ReportFigure(
        "collapse-map",
        search_plots.plot_collapse_map(runs),
        "Scatter chart of patches a batch against learning rate, marked by how each trial ended; "
        f"{totals.collapsed} of {totals.trials} collapsed.",
        f"Where trials collapsed{'' if totals.collapsed else ': none did'}. The number beside a "
        "mark is K, the views of each point in a batch.",
    )


def _compute(totals: Summary) -> ReportFigure:
    return ReportFigure(
        "compute",
        search_plots.plot_compute_usage(totals),
        f"Bar chart: {totals.trained} patches trained, {totals.saved_by_pruning} saved by pruning, "
        f"{totals.saved_by_detection} saved by stopping collapsed and diverged trials, "
        f"{totals.lost_to_failures} lost to failures, {totals.retrained_patches} trained again, of "
        f"{totals.budget}.",
        "Patches trained, lost and saved, as shares of what all trials would take to the end. "
        + _sharing(totals),
    )


def _sharing(totals: Summary) -> str:
    if not totals.cache_seconds_computed and not totals.cache_seconds_saved:
        return ""
    return (
        "Denoisers and first weights that trials share took "
        f"{format_duration(totals.cache_seconds_computed)} to "
        f"make, beside this; making them for each trial would have taken "
        f"{format_duration(totals.cache_seconds_saved)} more."
    )
