"""When a search ends because nothing improves any more."""

from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from hpsearch.search.objective import Objective
from hpsearch.search.pareto import Values, covers, run_values
from hpsearch.search.points import begun
from hpsearch.search.search import Search
from hpsearch.tracking.runs import Run


def fruitless(endings: Iterable[Values | None], objectives: Sequence[Objective]) -> int:
    """How many trials in a row have ended without an improvement.

    A trial improves if none before it is at least as good in all objectives.

    Args:
        endings: objectives of the trials in the order in which they ended; None for one that was
            pruned or collapsed.
    """
    count, best = 0, list[Values]()
    for values in endings:
        if values is None or any(covers(other, values, objectives) for other in best):
            count += 1
        else:
            count, best = 0, [*best, values]
    return count


def study_is_out_of_patience(trials: Iterable[FrozenTrial], search: Search) -> bool:
    """By the study; failures of machines say nothing, so they do not count."""
    if search.patience is None:
        return False
    ended = [t for t in begun(trials) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    ended.sort(key=lambda trial: (trial.datetime_complete, trial.number))
    return fruitless(map(_values, ended), search.objectives) >= search.patience


def runs_are_out_of_patience(runs: Iterable[Run], search: Search) -> bool:
    """The same by the ledger."""
    if search.patience is None:
        return False
    silent = ("running", "failed", "interrupted")
    ended = [run for run in runs if run.kind == "trial" and run.status not in silent]
    ended.sort(key=lambda run: (run.ended or 0.0, run.number))
    endings = (run_values(run, search.objectives) for run in ended)
    return fruitless(endings, search.objectives) >= search.patience


def _values(trial: FrozenTrial) -> Values | None:
    collapsed = any(value > 0 for value in trial.constraints.values())
    if trial.state != TrialState.COMPLETE or collapsed:
        return None
    return tuple(trial.values)
