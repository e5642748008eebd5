"""When a search ends because nothing improves any more."""

from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from hpsearch.search.objective import Objective
from hpsearch.search.pareto import Values, covers, run_values
from hpsearch.search.points import begun
from hpsearch.search.search import Search
from hpsearch.tracking.runs import Run

ENDED = "ended"
"""User attribute of an Optuna trial: the how manyth it was to end, whatever the clock said."""


def fruitless(
    endings: Iterable[Values | None], objectives: Sequence[Objective], *, forgiven: int = 0
) -> int:
    """How many trials in a row have ended without an improvement.

    A trial improves if none before it is at least as good in all objectives.

    Args:
        endings: objectives of the trials in the order in which they ended; None for one that was
            pruned or collapsed.
        forgiven: so many, from the first on, are not counted; what comes must still beat them.
    """
    since, total, best = forgiven, 0, list[Values]()
    for total, values in enumerate(endings, 1):
        if values is not None and not any(covers(other, values, objectives) for other in best):
            since, best = max(since, total), [*best, values]
    return max(0, total - since)


def study_is_out_of_patience(
    trials: Iterable[FrozenTrial], search: Search, *, forgiven: int = 0
) -> bool:
    """By the study; failures of machines say nothing, so they do not count."""
    if search.patience is None:
        return False
    ended = [t for t in begun(trials) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    ended.sort(key=lambda t: (t.user_attrs.get(ENDED, 0), t.datetime_complete, t.number))
    values = map(_values, ended)
    return fruitless(values, search.objectives, forgiven=forgiven) >= search.patience


def runs_are_out_of_patience(runs: Iterable[Run], search: Search, *, forgiven: int = 0) -> bool:
    """The same by the ledger."""
    if search.patience is None:
        return False
    endings = (run_values(run, search.objectives) for run in telling(runs))
    return fruitless(endings, search.objectives, forgiven=forgiven) >= search.patience


def telling(runs: Iterable[Run]) -> list[Run]:
    """Trials whose end says something of their configuration, in the order in which they ended."""
    silent = ("running", "failed", "interrupted")
    ended = [run for run in runs if run.kind == "trial" and run.status not in silent]
    return sorted(ended, key=lambda run: (run.ended or 0.0, run.number))


def _values(trial: FrozenTrial) -> Values | None:
    collapsed = any(value > 0 for value in trial.constraints.values())
    if trial.state != TrialState.COMPLETE or collapsed:
        return None
    return tuple(trial.values)
