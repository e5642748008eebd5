"""Comparison of searches: best value over cost, distribution of values, importance, shared terms.

Searches with the same terms, which differ in the sampler's seed alone, form a group, which is drawn
as the mean of its searches, from three on with the 95 % t-interval.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from hpsearch.errors import UserError
from hpsearch.evaluation.bootstrap import student_quantile
from hpsearch.reporting.importance import importance
from hpsearch.reporting.leaderboard import Direction, shown_status, trials_of
from hpsearch.reporting.plot_style import SMALL, count_patches, line_styles, new_axes, set_title
from hpsearch.reporting.text_tables import MIN_SEEDS, TextTable, format_patches
from hpsearch.shapes import Float
from hpsearch.tracking.run_state import Run

CONFIDENCE = 0.95
COSTS = 200
"""Costs at which the curves of a group are averaged."""


@dataclass(frozen=True, kw_only=True)
class ComparedSearch:
    """Search to be compared."""

    name: str
    runs: tuple[Run, ...]
    metric: str
    direction: Direction
    report_every: int
    terms: Mapping[str, str]
    """Settings by name that decide its values: space, data, split, budget, sampler …"""
    seconds: float | None = None
    """Median seconds of its trials; None if unknown."""

    @property
    def values(self) -> list[float]:
        """Last objectives of the completed trials."""
        return [
            run.reports[-1]["objective"]
            for run in trials_of(self.runs)
            if shown_status(run) == "completed"
        ]

    @property
    def cost(self) -> int:
        """Patches that all trials have seen together."""
        return sum(run.seen for run in trials_of(self.runs))

    def best_over_cost(self) -> tuple[list[int], list[float]]:
        """Best completed objective over the patches that all trials had seen until then.

        Returns:
            Costs at which it improves, in patches, and the best objective from there on.
        """
        reports = sorted(
            (
                (report["time"], i, report)
                for i, run in enumerate(trials_of(self.runs))
                for report in run.reports
            ),
            key=lambda one: one[:2],
        )
        trials, seen, cost = trials_of(self.runs), dict[int, int](), 0
        costs, values = list[int](), list[float]()
        sign = 1 if self.direction == "maximize" else -1
        for _, i, report in reports:
            cost += report["seen"] - seen.get(i, 0)
            seen[i] = report["seen"]
            run, value = trials[i], report["objective"]
            is_last = report is run.reports[-1] and shown_status(run) == "completed"
            if is_last and (not values or sign * value > sign * values[-1]):
                costs.append(cost)
                values.append(value)
        return costs, values


def check_comparable(searches: Sequence[ComparedSearch]) -> None:
    """Check that the objectives of all searches are one.

    Raises:
        UserError: if they are not, or a search has no completed trial.
    """
    first = searches[0]
    for other in searches[1:]:
        if (other.metric, other.direction) != (first.metric, first.direction):
            raise UserError(
                f"{other.name!r} optimizes {other.metric} ({other.direction}) and {first.name!r} "
                f"{first.metric} ({first.direction}); compare searches of one objective",
                code="not-comparable",
            )
    for one in searches:
        if not one.values:
            raise UserError(
                f"no trial of search {one.name!r} completed, so there is nothing to compare",
                code="no-completed-trial",
            )


def result_table(searches: Sequence[ComparedSearch]) -> TextTable:
    """Table of the searches: trials, cost, best value, and the cost at which it was found."""
    rows = []
    for one in searches:
        costs, values = one.best_over_cost()
        trials = trials_of(one.runs)
        rows.append(
            (
                one.name,
                str(len(trials)),
                str(len(one.values)),
                format_patches(one.cost),
                f"{values[-1]:.4f}",
                format_patches(costs[-1]),
                f"{statistics.median(one.values):.4f}",
            )
        )
    header = ("search", "trials", "completed", "patches", "best", "found after", "median")
    return TextTable(header, tuple(rows), frozenset({"search"}))


def terms_table(searches: Sequence[ComparedSearch]) -> TextTable:
    """Table of the terms of all searches, with a column that marks those that they share."""
    names = list(dict.fromkeys(name for one in searches for name in one.terms))
    rows = [
        (
            name,
            *(one.terms.get(name, "–") for one in searches),
            "same" if len({one.terms.get(name) for one in searches}) == 1 else "differs",
        )
        for name in names
    ]
    seconds = ("–" if one.seconds is None else f"{one.seconds:.0f}" for one in searches)
    rows.append(("median seconds a trial", *seconds, ""))
    header = ("term", *(one.name for one in searches), "")
    return TextTable(header, tuple(rows), frozenset(header))


def importance_table(searches: Sequence[ComparedSearch]) -> TextTable:
    """Table of the settings whose effect is distinguished from chance in at least one search.

    A cell is the share of the ranks' variance that the setting explains; ``–`` where its effect is
    not distinguished from chance, or the search does not vary it.
    """
    effects = [importance(one.runs, report_every=one.report_every).shown for one in searches]
    found = [{effect.setting: effect for effect in shown} for shown in effects]
    names = list(dict.fromkeys(name for one in found for name in one))
    rows = [
        (name, *(f"{one[name].share:.0%}" if name in one else "–" for one in found))
        for name in names
    ]
    return TextTable(("setting", *(s.name for s in searches)), tuple(rows), frozenset({"setting"}))


def different_terms(searches: Sequence[ComparedSearch], names: Sequence[str]) -> list[str]:
    """Terms of these that differ between the searches."""
    return [name for name in names if len({one.terms.get(name) for one in searches}) > 1]


def grouped(searches: Sequence[ComparedSearch]) -> dict[str, list[ComparedSearch]]:
    """Searches with equal terms, by a name of their group that no other has."""
    groups: dict[tuple[tuple[str, str], ...], list[ComparedSearch]] = {}
    for one in searches:
        groups.setdefault(tuple(sorted(one.terms.items())), []).append(one)
    return {
        group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} alike": group
        for group in groups.values()
    }


def small_group_remarks(searches: Sequence[ComparedSearch]) -> list[str]:
    """Sentences on groups whose mean has no interval."""
    return [
        f"{' and '.join(one.name for one in group)} have equal terms; an interval of their "
        f"mean needs {MIN_SEEDS} searches."
        for group in grouped(searches).values()
        if 1 < len(group) < MIN_SEEDS
    ]


def mean_over_cost(
    group: Sequence[ComparedSearch],
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Mean best value of a group over cost, from where all have one to the cheapest's end.

    Returns:
        Costs (c,), means (c,), and half the widths of the t-intervals (c,), 0 for fewer than three
        searches.
    """
    curves = [one.best_over_cost() for one in group]
    start = max(costs[0] for costs, _ in curves)
    end = max(start, min(one.cost for one in group))
    grid = np.linspace(start, end, COSTS)
    values = np.array(
        [np.asarray(best)[np.searchsorted(costs, grid, "right") - 1] for costs, best in curves]
    )
    half = np.zeros(COSTS)
    if len(group) >= MIN_SEEDS:
        error = values.std(axis=0, ddof=1) / np.sqrt(len(group))
        half = student_quantile(CONFIDENCE, len(group) - 1) * error
    return grid, values.mean(axis=0), half


def plot_best_over_cost(searches: Sequence[ComparedSearch]) -> Figure:
    """Figure of the best completed objective over the patches seen, a line per search or group."""
    figure, (axes,) = new_axes(9.6, 3.8)
    metric = searches[0].metric
    set_title(axes, "Best completed trial over cost", x="patches seen by all trials", y=metric)
    for (name, group), (color, dashes) in zip(
        grouped(searches).items(), line_styles(), strict=False
    ):
        grid, mean, half = mean_over_cost(group)
        axes.plot(grid, mean, dashes, color=color, linewidth=1.8, label=name,
                  drawstyle="steps-post")  # fmt: skip
        if len(group) >= MIN_SEEDS:
            axes.fill_between(grid, mean - half, mean + half, color=color, alpha=0.15, step="post")
    count_patches(axes)
    axes.legend(frameon=False, fontsize=SMALL)
    return figure
