"""Estimate of the time that a search still takes, from its trials so far."""

import heapq
from collections.abc import Sequence

from hpsearch.tracking.run_state import Run

END_S = 20.0
"""Seconds that a search takes besides training and describing: Ray, registration, figures."""


def seconds_left(
    runs: Sequence[Run], *, trials: int, budget: int, end_patches: int = 0
) -> float | None:
    """Seconds until the end of a search; None before the first report.

    Patches that trials still train are those expected from how far earlier trials came (see
    ``expected_patches``); those not started take the place of the running ones as these end.

    Args:
        runs: trials and baselines so far.
        trials: number of trials in all.
        budget: patches of a trial that is not stopped.
        end_patches: patches trained after the last trial, one after the other; those of a baseline
            that has started are subtracted.
    """
    patches_per_s = training_rate(runs)
    if patches_per_s is None:
        return None
    own = [run for run in runs if run.kind == "trial"]
    observed = [(run.seen, run.status not in ("running", "interrupted")) for run in own]
    left = {
        run.id: expected_patches(run.seen, observed, budget=budget)
        for run in own
        if run.status in ("running", "interrupted")
    }
    running = [left[run.id] for run in own if run.status == "running"]
    waiting = [left[run.id] for run in own if run.status == "interrupted"]
    waiting += [expected_patches(0, observed, budget=budget)] * max(0, trials - len(own))
    slots = running or [0.0]
    heapq.heapify(slots)
    for patches in waiting:
        heapq.heapreplace(slots, slots[0] + patches)
    trained = sum(run.seen for run in runs if run.kind != "trial")
    return (max(slots) + max(0, end_patches - trained)) / patches_per_s + END_S


def expected_patches(seen: int, observed: Sequence[tuple[int, bool]], *, budget: int) -> float:
    """Mean number of patches that a trial trains after its first ``seen`` ones.

    It is the area under the Kaplan-Meier estimate of survival, in which trials that still run count
    as censored. The mean over ended trials alone would be too low, since the short ones end first.

    Args:
        seen: patches that it has trained.
        observed: patches of each trial so far, and whether it has ended.
        budget: patches of a trial that is not stopped.

    Example:
        >>> expected_patches(0, [(10, True), (100, True)], budget=100)
        55.0
        >>> expected_patches(0, [(10, True), (20, False)], budget=100)
        55.0
    """
    survival, area, at = 1.0, 0.0, seen
    for end in sorted({n for n, ended in observed if ended and seen < n < budget}):
        area += survival * (end - at)
        at_risk = sum(n >= end for n, _ in observed)
        survival *= 1 - sum(n == end and ended for n, ended in observed) / at_risk
        at = end
    return area + survival * max(0, budget - at)


def training_rate(runs: Sequence[Run]) -> float | None:
    """Patches per second of one trial, with its validation and start; None before any report."""
    seconds = sum(run_seconds(run) for run in runs)
    return sum(run.seen for run in runs) / seconds if seconds > 0 else None


def run_seconds(run: Run) -> float:
    """Seconds from the start of a run to its last report; of training alone if it was resumed."""
    if not run.reports:
        return 0.0
    last = run.reports[-1]
    return last.get("seconds", 0.0) if run.resumes else last["time"] - run.started
