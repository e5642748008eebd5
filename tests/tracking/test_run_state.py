"""Runs put together from events; those that differ in their training seed alone stand together."""

import pytest

from hpsearch.config import SGD, TrialConfig
from hpsearch.tracking.run_state import Run, group_by_config, runs_from


def run(number: int, rate: float, seed: int) -> Run:
    config = TrialConfig(optimizer=SGD(lr=rate), seed=seed)
    return Run(id=str(number), number=number, config=config, started=0.0)


def test_repeats_stand_together_in_order() -> None:
    runs = [run(0, 0.1, 0), run(1, 0.2, 0), run(2, 0.1, 1), run(3, 0.2, 1), run(4, 0.1, 2)]
    assert [[r.number for r in group] for group in group_by_config(runs)] == [[0, 2, 4], [1, 3]]


@pytest.mark.parametrize(
    ("attempts", "again"),
    [
        ([[100, 200, 300]], 0),
        ([[100, 200], [200, 300]], 0),  # from its checkpoint, whose report is told again
        ([[100, 200], [300, 400]], 0),  # the checkpoint was ahead of what was heard
        ([[100, 200], [100, 200, 300]], 200),  # from the beginning
        ([[100, 200], [100, 200, 300], [100, 200, 300]], 500),
        ([[100, 200, 300], [150, 250, 350]], 300),
        ([[100, 200, 300], []], 0),
    ],
)
def test_patches_that_are_trained_again_are_counted(attempts: list[list[int]], again: int) -> None:
    config = TrialConfig().model_dump(mode="json")
    events = []
    for reports in attempts:
        start = {"event": "start", "trial": "000", "number": 0, "config": config, "time": 0.0}
        events.append(start)
        for seen in reports:
            message = {"event": "report", "trial": "000", "seen": seen, "objective": 0.5}
            events.append({**message, "metrics": {}, "time": 1.0})
    (run,) = runs_from(events)
    assert run.retrained_patches == again
    seen = [report["seen"] for report in run.reports]
    assert seen == sorted(set(seen))
    assert run.retries == len(attempts) - 1


def test_one_that_restarts_from_scratch_after_its_first_report_trains_that_again() -> None:
    config = TrialConfig().model_dump(mode="json")
    start = {"event": "start", "number": 0, "config": config}
    message = {"event": "report", "seen": 100, "objective": 0.5, "metrics": {}}
    events = [
        start,
        message,
        start,
        {"event": "restarted_from_scratch", "reason": "damaged"},
        message,
        start,
        message,
    ]
    (run,) = runs_from({**event, "trial": "000", "time": 0.0} for event in events)
    assert (run.retrained_patches, run.restarted_attempts, run.retries) == (100, (1,), 2)
