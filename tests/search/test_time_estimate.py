"""Estimates of the time that a search still takes."""

import numpy as np
import pytest

from hpsearch.config import TrialConfig
from hpsearch.search.time_estimate import END_S, expected_patches, seconds_left
from hpsearch.tracking.run_state import Run, RunStatus

BUDGET = 1000


def run(number: int, seen: int, status: RunStatus, *, kind: str = "trial") -> Run:
    """A run of ten patches a second that has reported once."""
    report = {"seen": seen, "time": 100 + seen / 10, "metrics": {}, "objective": 0.5}
    reports = (report,) if seen else ()
    return Run(f"{kind}{number}", number, TrialConfig(), 100.0, status, "", reports, kind=kind)


def test_trials_that_run_are_not_taken_for_as_short_as_those_that_were_pruned_first() -> None:
    pruned = [run(i, 250, "pruned") for i in range(3)]
    last = run(3, 750, "running")
    assert seconds_left([*pruned, last], trials=4, budget=BUDGET) == pytest.approx(25 + END_S)
    # the mean over ended trials would promise 4 x 250 patches in all, which have been trained


def test_what_waits_takes_the_places_of_what_runs_and_the_end_is_counted() -> None:
    runs = [run(0, 1000, "completed"), run(1, 500, "running"), run(2, 500, "running")]
    # two places: 500 left on each, then three trials of 1000 patches, then the baseline
    found = seconds_left(runs, trials=6, budget=BUDGET, end_patches=400)
    assert found == pytest.approx((500 + 2000 + 400) / 10 + END_S)
    ended = [run(number, 1000, "completed") for number in range(6)]
    baseline = run(-1, 300, "running", kind="baseline")
    found = seconds_left([*ended, baseline], trials=6, budget=BUDGET, end_patches=400)
    assert found == pytest.approx(10 + END_S)
    assert seconds_left([run(0, 0, "running")], trials=6, budget=BUDGET) is None


def test_the_expected_patches_are_those_of_the_distribution() -> None:
    """Half of the trials are seen to the end, half are cut off at a random moment."""
    rng = np.random.default_rng(0)
    ends = np.minimum(rng.geometric(1 / 400, 4000), BUDGET)
    cuts = rng.integers(1, BUDGET, 4000)
    observed = [
        (int(min(end, cut)), bool(end <= cut)) if i % 2 else (int(end), True)
        for i, (end, cut) in enumerate(zip(ends, cuts, strict=True))
    ]
    assert expected_patches(0, observed, budget=BUDGET) == pytest.approx(ends.mean(), rel=0.03)
    beyond = ends[ends > 600] - 600
    assert expected_patches(600, observed, budget=BUDGET) == pytest.approx(beyond.mean(), rel=0.05)
