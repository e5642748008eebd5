"""Further figures of a search report: trials by their settings and by time."""

from collections.abc import Sequence
from functools import partial

from hpsearch.errors import list_names
from hpsearch.reporting import setting_plots
from hpsearch.reporting.importance import importance
from hpsearch.reporting.leaderboard import last_event_time, trials_of
from hpsearch.reporting.search_figures import PlottedObjective, ReportFigure, SearchFigures
from hpsearch.tracking.run_state import Run

MIN_SETTING_TRIALS = 5
"""Fewest trials with an objective whose settings are drawn."""


def setting_pictures(
    runs: Sequence[Run], *, objective: PlottedObjective, report_every: int
) -> SearchFigures:
    """Slices, parallel coordinates, contour, distribution and timeline, if they show something.

    Args:
        runs: trials, and baselines, which are ignored.
        objective: first objective of the search.
        report_every: patches between two reports.
    """
    trials = trials_of(runs)
    scored = setting_plots.with_objective(trials)
    drawn: list[ReportFigure | str] = []
    if len(scored) < MIN_SETTING_TRIALS or not setting_plots.setting_columns(scored):
        drawn.append(
            "Slices, parallel coordinates, contour and distribution: fewer than "
            f"{MIN_SETTING_TRIALS} trials with different settings have a score."
        )
    else:
        drawn += [
            _slices(trials, objective.metric),
            _parallel_coordinates(scored, objective),
            _contour(scored, objective.metric, report_every),
            _distribution(scored, objective),
        ]
    drawn.append(_timeline(trials))
    return SearchFigures(
        figures=[one for one in drawn if isinstance(one, ReportFigure)],
        omitted=[one for one in drawn if isinstance(one, str)],
    )


def _slices(trials: Sequence[Run], metric: str) -> ReportFigure:
    names = [column.name for column in setting_plots.setting_columns(trials)]
    shown = names[: setting_plots.MAX_PANELS]
    left_out = list_names(names[len(shown) :], limit=5)
    return ReportFigure(
        "slices",
        partial(setting_plots.plot_slices, trials, metric=metric),
        f"Scatter charts of {metric} over {list_names(shown, limit=9)}, one mark per trial.",
        "Every trial by one setting at a time; of settings that always change together, the first."
        + (f" Not shown: {left_out}." if left_out else ""),
        further=True,
    )


def _parallel_coordinates(scored: Sequence[Run], objective: PlottedObjective) -> ReportFigure:
    return ReportFigure(
        "parallel-coordinates",
        partial(
            setting_plots.plot_parallel_coordinates, scored, direction=objective.direction,
            metric=objective.metric,
        ),
        f"One line per trial over its settings and its {objective.metric}.",
        "Read from top to bottom: each line is a trial, each row one setting. A line skips a "
        "setting that its trial does not have.",
        further=True,
    )  # fmt: skip


def _contour(scored: Sequence[Run], metric: str, report_every: int) -> ReportFigure | str:
    effects = importance(scored, report_every=report_every).effects
    ranked = [name for effect in effects for name in effect.setting.split(" and ")]
    chosen = setting_plots.contour_settings(scored, ranked)
    if chosen is None:
        return (
            "Contour: no two settings that are numbers have at least "
            f"{setting_plots.MIN_CONTOUR_TRIALS} trials with both."
        )
    x, y, runs = chosen
    return ReportFigure(
        "contour",
        partial(setting_plots.plot_contour, x, y, runs, metric=metric),
        f"Contour chart of {metric} over {x.name} and {y.name}, with a point for each trial.",
        f"{metric} over {x.name} and {y.name}, interpolated linearly between {len(runs)} trials "
        "(points), which differ in other settings too and, if pruned, in patches seen.",
        further=True,
    )


def _distribution(scored: Sequence[Run], objective: PlottedObjective) -> ReportFigure:
    values = {"all with a score": [run.reports[-1]["objective"] for run in scored]}
    completed = [run for run in scored if run.status == "completed"]
    if 1 < len(completed) < len(scored):
        values["completed"] = [run.reports[-1]["objective"] for run in completed]
    return ReportFigure(
        "distribution",
        partial(
            setting_plots.plot_edf, values, direction=objective.direction, metric=objective.metric
        ),
        f"Empirical distribution function of {objective.metric} over {len(scored)} trials.",
        "Share of trials that are at most as good. The further to the "
        f"{'right' if objective.direction == 'maximize' else 'left'} a curve lies, the easier are "
        "good settings to find in this space.",
        further=True,
    )


def _timeline(trials: Sequence[Run]) -> ReportFigure | str:
    timed = [run for run in trials if last_event_time(run) > run.started]
    if len(timed) < 2:
        return "Timeline: fewer than two trials have run."
    return ReportFigure(
        "timeline",
        partial(setting_plots.plot_timeline, timed),
        f"Bar chart of when each of {len(timed)} trials ran.",
        "When each trial ran. A gap is time in which fewer trials ran than could.",
        further=True,
    )
