"""Results of the retrainings of a promotion: ranking, selected network, and how it is explained.

Of the best configuration the network with the median objective is selected, as a typical result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import correlation, fmean, stdev

from hpsearch.config.formatting import diff_summaries
from hpsearch.errors import UserError
from hpsearch.promotion.retraining_plan import RetrainingPlan, SelectedConfig, final_objective
from hpsearch.search.objective import Objective
from hpsearch.tracking.model_card import CardTable
from hpsearch.tracking.run_state import Run


@dataclass(frozen=True)
class RetrainingResult:
    """Result of a retrained configuration."""

    selected: SelectedConfig
    runs: tuple[Run, ...]
    """Runs in order of the seed."""
    values: tuple[float, ...]
    """Guarded objective of each run; the worst value if it did not complete."""

    @property
    def mean(self) -> float:
        """Mean objective over seeds."""
        return fmean(self.values)

    @property
    def standard_deviation(self) -> float:
        """Standard deviation over seeds; 0 for a single seed."""
        return stdev(self.values) if len(self.values) > 1 else 0.0


def rank(plan: RetrainingPlan, runs: Sequence[Run], objective: Objective) -> list[RetrainingResult]:
    """Rank the configurations by mean objective, best first; ties by the objective in the search.

    Args:
        plan: plan of the promotion.
        runs: runs of the promotion, all ended.
        objective: objective of the search.
    """
    by_config = {
        run.config: run for run in runs if run.kind == "trial" and run.status != "interrupted"
    }
    table = []
    for one in plan.selected:
        seeds = range(one.config.seed + 1, one.config.seed + 1 + plan.seeds)
        own = tuple(by_config[plan.config(one, seed)] for seed in seeds)
        table.append(
            RetrainingResult(one, own, tuple(final_objective(run, objective) for run in own))
        )
    table.sort(key=lambda standing: standing.mean, reverse=objective.direction == "maximize")
    return table


def median_run(result: RetrainingResult, objective: Objective) -> Run:
    """Select the run with the median objective; of an even number, the worse of the middle two.

    Raises:
        UserError: if that run did not complete, so that the configuration is unreliable.
    """
    order = sorted(
        zip(result.values, range(len(result.runs)), strict=True),
        reverse=objective.direction == "minimize",
    )
    run = result.runs[order[(len(order) - 1) // 2][1]]
    if run.status != "completed":
        raise UserError(
            f"most trainings of the best configuration did not complete (seed {run.config.seed} "
            f"{run.status}: {run.reason}), so nothing is registered; promote a search with a "
            "configuration that trains reliably",
            code="unreliable-configuration",
        )
    return run


def rank_correlation(results: Sequence[RetrainingResult]) -> float | None:
    """Spearman correlation of the values in the search with the means of the retrainings.

    None with fewer than three configurations, or where all of either are equal.
    """
    if len(results) < 3:
        return None
    pairs = [(one.selected.objective, one.mean) for one in results]
    first, second = (_ranks(values) for values in zip(*pairs, strict=True))
    return None if len({*first}) == 1 or len({*second}) == 1 else correlation(first, second)


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1 in rising order; ties have the mean of theirs."""
    return [
        sum(other < value for other in values) + (1 + values.count(value)) / 2 for value in values
    ]


def retraining_table(results: Sequence[RetrainingResult]) -> CardTable:
    """Table of the configurations with each seed's objective, mean and standard deviation."""
    seeds = [f"seed {number}" for number in range(1, len(results[0].values) + 1)]
    names = diff_summaries([result.selected.config for result in results])
    rows = [
        (
            result.selected.trial,
            f"{result.selected.objective:.4f}",
            *map(_cell, result.runs, result.values),
            f"{result.mean:.4f}",
            f"{result.standard_deviation:.4f}",
            name,
        )
        for result, name in zip(results, names, strict=True)
    ]
    return CardTable(("trial", "in search", *seeds, "mean", "± sd", "settings"), rows)


def explain_selection(
    results: Sequence[RetrainingResult], selected_run: Run, objective: Objective
) -> str:
    """Explain in sentences how the network was selected."""
    best, count = results[0], len(results[0].values)
    among = f"the best of {len(results)} configurations" if len(results) > 1 else "one"
    return (
        f"The configuration of trial {best.selected.trial}, {among} by mean {objective.metric} on "
        f"validation over {count} {'seeds' if count > 1 else 'seed'}; of its trainings the one "
        f"with the median, seed {selected_run.config.seed}. Collapsed, diverged and failed "
        f"trainings count with the worst value.{_rank_sentence(results)}"
    )


def _rank_sentence(results: Sequence[RetrainingResult]) -> str:
    found = rank_correlation(results)
    if found is None:
        return ""
    return (
        f" The rank correlation of values in the search with those of the retrainings is "
        f"{found:.2f} over {len(results)} configurations."
    )


def _cell(run: Run, value: float) -> str:
    return f"{value:.4f}" if run.status == "completed" else run.status
