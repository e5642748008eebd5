"""Figures of a search report, with alternative texts and captions."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from hpsearch.reporting import search_plots
from hpsearch.reporting.leaderboard import Direction, Summary, leaderboard, summary
from hpsearch.reporting.text_tables import duration
from hpsearch.tracking.run_state import Run


class Picture(NamedTuple):
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
) -> list[Picture]:
    """All figures that follow from the runs of a search, in the order of the report.

    Args:
        budget: patches that a full trial sees.
        importances: share of the objective's spread that each setting explains, if it is known.
    """
    totals = summary(runs, budget=budget)
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


def _curves(runs: Sequence[Run], *, direction: Direction, metric: str) -> Picture:
    return Picture(
        "learning-curves",
        search_plots.search_curves(runs, direction=direction, metric=metric),
        f"Line chart of {metric} over patches seen, one line a trial.",
        "The ten best trials against those that were stopped. Trials that collapsed or diverged "
        "are marked on the axis where they were stopped.",
    )


def _winning_run(run: Run) -> Picture:
    last = ", ".join(
        f"{k.removeprefix('val/')} {v:.3f}" for k, v in run.last.items() if k in MAX_SHOWN
    )
    return Picture(
        "best-trial",
        search_plots.learning_curves(run),
        f"Two line charts of trial {run.label} over patches seen: training loss and validation "
        f"mAP. At the last report: {last or 'no score'}.",
        f"Trial {run.label}. An encoder that maps every patch to one point pays the collapse "
        "value.",
    )


def _history(runs: Sequence[Run], *, direction: Direction, metric: str) -> Picture:
    return Picture(
        "trial-by-trial",
        search_plots.history(runs, direction=direction, metric=metric),
        f"Scatter chart of the last {metric} of each trial in the order of their start.",
        "The last report of every trial. Marks of pruned trials are lower also because they were "
        "trained on fewer patches.",
    )


def _importance(importances: Mapping[str, float]) -> Picture:
    ranked = sorted(importances.items(), key=lambda item: -item[1])[:3]
    words = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked)
    return Picture(
        "importance",
        search_plots.importance(importances),
        f"Bar chart of the importance of settings. The first: {words}.",
        "Which settings the objective depended on, within the ranges that were searched.",
    )


def _collapse(runs: Sequence[Run], totals: Summary) -> Picture:
    return Picture(
        "collapse-map",
        search_plots.collapse_map(runs),
        "Scatter chart of patches a batch against learning rate, marked by how each trial ended; "
        f"{totals.collapsed} of {totals.trials} collapsed.",
        f"Where trials collapsed{'' if totals.collapsed else ': none did'}. The number beside a "
        "mark is K, the views of each point in a batch.",
    )


def _compute(totals: Summary) -> Picture:
    return Picture(
        "compute",
        search_plots.compute(totals),
        f"Bar chart: {totals.trained} patches trained, {totals.saved_by_pruning} saved by pruning, "
        f"{totals.saved_by_detection} saved by stopping collapsed and diverged trials, "
        f"{totals.lost_to_failures} lost to failures, {totals.trained_again} trained again, of "
        f"{totals.budget}.",
        "Patches trained, lost and saved, as shares of what all trials would take to the end. "
        + _sharing(totals),
    )


def _sharing(totals: Summary) -> str:
    if not totals.seconds_sharing and not totals.seconds_spared:
        return ""
    return (
        f"Denoisers and first weights that trials share took {duration(totals.seconds_sharing)} to "
        f"make, beside this; making them for each trial would have taken "
        f"{duration(totals.seconds_spared)} more."
    )
