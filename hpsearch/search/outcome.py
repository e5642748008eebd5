"""What a trial says of itself, and how it ended."""

from collections.abc import Mapping
from typing import Any

from hpsearch.search.objective import Objective
from hpsearch.training.loop import Report

FAILURES = ("collapsed", "diverged")


def guarded(report: Report, objective: Objective) -> dict[str, Any]:
    """A report with the objective that counts: the worst, if the trial failed or has collapsed.

    A validation in which all descriptors lie in one point counts as a collapse, also where the
    detector of the training loop has not spoken.
    """
    lost = report.status in FAILURES or report.metrics.get("val/collapsed", 0.0) > 0
    return {
        "seen": report.seen,
        "objective": objective.value(report.metrics, collapsed=lost),
        "collapsed": lost,
        "status": report.status,
        "reason": report.reason,
        "metrics": report.metrics,
    }


def outcome(result: Mapping[str, Any]) -> tuple[str, str]:
    """Status and reason of a trial, from its last guarded report.

    One that still says ``running`` belongs to a trial that was stopped. One that ended, or was
    stopped, while its validation descriptors lay in one point has collapsed: the guard gave it the
    worst objective.
    """
    status = result["status"]
    if status not in FAILURES and result.get("collapsed"):
        return "collapsed", "the descriptors of the validation patches lie in one point"
    if status != "running":
        return status, result.get("reason", "")
    return "pruned", "behind others at the same patches"
