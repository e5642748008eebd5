"""Several objectives at once: what no other run beats in all of them."""

from collections.abc import Sequence

from hpsearch.search.objective import Objective
from hpsearch.tracking.runs import Run

Values = tuple[float, ...]


def covers(one: Values, other: Values, objectives: Sequence[Objective]) -> bool:
    """Whether ``one`` is at least as good as ``other`` in every objective."""
    pairs = zip(objectives, one, other, strict=True)
    return not any(objective.better(theirs, ours) for objective, ours, theirs in pairs)


def run_values(run: Run, objectives: Sequence[Objective]) -> Values | None:
    """A completed run's objectives; None if it did not complete."""
    if run.status != "completed":
        return None
    further = (objective.value(run.last, collapsed=False) for objective in objectives[1:])
    return (float(run.reports[-1]["objective"]), *further)


def pareto_front(runs: Sequence[Run], objectives: Sequence[Objective]) -> list[Run]:
    """Completed trials that no other beats in all objectives, best in the first objective first.

    Of runs that are equal in all objectives, each stands on the front.
    """
    found = [(run, run_values(run, objectives)) for run in runs if run.kind == "trial"]
    known = [(run, values) for run, values in found if values is not None]
    front = [
        (run, values)
        for run, values in known
        if not any(other != values and covers(other, values, objectives) for _, other in known)
    ]
    best_first = objectives[0].direction == "maximize"
    return [run for run, _ in sorted(front, key=lambda pair: pair[1][0], reverse=best_first)]
