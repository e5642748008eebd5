"""Result of a trial, and the Pareto front of several objectives."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import TYPE_CHECKING, Any

from hpsearch.collapse_thresholds import is_reported_collapsed
from hpsearch.search.objective import Objective
from hpsearch.tracking.run_state import Run

if TYPE_CHECKING:
    from hpsearch.training.loop import Report

COLLAPSE_STATUSES = ("collapsed", "diverged")
COLLAPSED = "collapsed"
"""Constraint in the study that collapsed and diverged trials violate."""


def to_result(report: "Report", objective: Objective) -> dict[str, Any]:
    """Convert a report to a result with a guarded objective: the worst value after a collapse.

    A validation in which all descriptors lie in one point counts as a collapse, even if the
    training loop's detector has not found one.
    """
    lost = report.status in COLLAPSE_STATUSES or is_reported_collapsed(report.metrics)
    return {
        "seen": report.seen,
        "objective": objective.value(report.metrics, collapsed=lost),
        "collapsed": lost,
        "status": report.status,
        "reason": report.reason,
        "metrics": report.metrics,
    }


def final_status(result: Mapping[str, Any]) -> tuple[str, str]:
    """Status and reason of a trial, from its last guarded report.

    The status ``running`` belongs to a trial that was stopped. A trial that ended or was stopped
    while its validation descriptors lay in one point has collapsed; its guarded objective is the
    worst value.
    """
    status = result["status"]
    if status not in COLLAPSE_STATUSES and result.get("collapsed"):
        return "collapsed", "the descriptors of the validation patches lie in one point"
    if status != "running":
        return status, result.get("reason", "")
    return "pruned", "worse than others after the same number of patches"


Values = tuple[float, ...]


def weakly_dominates(one: Values, other: Values, objectives: Sequence[Objective]) -> bool:
    """Return whether ``one`` is at least as good as ``other`` in every objective."""
    pairs = zip(objectives, one, other, strict=True)
    return not any(objective.is_better(theirs, ours) for objective, ours, theirs in pairs)


def run_values(run: Run, objectives: Sequence[Objective]) -> Values | None:
    """Objectives of a completed run; None if it did not complete."""
    if run.status != "completed":
        return None
    further = (objective.value(run.last, collapsed=False) for objective in objectives[1:])
    return (float(run.reports[-1]["objective"]), *further)


def pareto_front(runs: Sequence[Run], objectives: Sequence[Objective]) -> list[Run]:
    """Pareto front of the completed trials, best in the first objective first.

    Runs that are equal in all objectives are all on the front.
    """
    found = [(run, run_values(run, objectives)) for run in runs if run.kind == "trial"]
    known = [(run, values) for run, values in found if values is not None]
    front = [
        (run, values)
        for run, values in known
        if not any(
            other != values and weakly_dominates(other, values, objectives) for _, other in known
        )
    ]
    best_first = objectives[0].direction == "maximize"
    return [run for run, _ in sorted(front, key=lambda pair: pair[1][0], reverse=best_first)]


def finite_float(value: object) -> float | None:
    """Convert a number, also one of NumPy, to a float; None if it is no finite number.

    Example:
        >>> finite_float(1), finite_float(float("nan")), finite_float("1"), finite_float(10**400)
        (1.0, None, None, None)
    """
    with suppress(OverflowError):
        if isinstance(value, Real) and math.isfinite(value):
            return float(value)
    return None


def hypervolume(runs: Sequence[Run], objectives: Sequence[Objective]) -> float | None:
    """Share of the box between the best and the worst values that the Pareto front dominates.

    The box is that of the completed trials in all objectives, so the share does not depend on
    units; 1 means that one trial is best in everything. None with one objective, or if the
    trials do not differ in one.

    Source: Zitzler & Thiele, IEEE Trans. Evol. Comput. 3 (1999) 257.
    """
    found = [run_values(run, objectives) for run in runs if run.kind == "trial"]
    signs = [1 if one.direction == "maximize" else -1 for one in objectives]
    points = [[s * v for s, v in zip(signs, one, strict=True)] for one in found if one is not None]
    if len(objectives) < 2 or not points:
        return None
    low, high = ([pick(column) for column in zip(*points, strict=True)] for pick in (min, max))
    if any(a == b for a, b in zip(low, high, strict=True)):
        return None
    scaled = {
        tuple((v - a) / (b - a) for v, a, b in zip(one, low, high, strict=True)) for one in points
    }
    return _dominated_volume(scaled)


def _dominated_volume(points: Iterable[Values]) -> float:
    """Volume of the points of the unit cube that are at most as large as one of ``points``.

    It is summed over slices along the last axis, from the largest value down.
    """
    remaining = sorted(points, key=lambda point: point[-1], reverse=True)
    if remaining and len(remaining[0]) == 1:
        return remaining[0][0]
    volume = 0.0
    for number, point in enumerate(remaining, 1):
        below = remaining[number][-1] if number < len(remaining) else 0.0
        if point[-1] > below:
            slab = {other[:-1] for other in remaining[:number]}
            volume += (point[-1] - below) * _dominated_volume(slab)
    return volume
