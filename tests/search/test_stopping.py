"""What a search has cost, read from its ledger, also of earlier sessions."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from hpsearch.search.stopping import Limits, UsageTracker
from hpsearch.tracking.event_log import EventLog


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "ledger.jsonl")


def start(event_log: EventLog, trial: str, *, gpus: float = 0.0, kind: str = "trial") -> None:
    event_log.append("start", trial=trial, kind=kind, place={"kind": "gpu", "gpus": gpus})


def report(event_log: EventLog, trial: str, seen: int, seconds: float) -> None:
    event_log.append("report", trial=trial, seen=seen, seconds=seconds)


def test_patches_are_counted_once_and_only_of_trials(event_log: EventLog) -> None:
    meter = UsageTracker(Limits(patches=250), event_log)
    start(event_log, "000")
    start(event_log, "baseline", kind="baseline")
    for seen in (100, 200, 200):  # one told again after a crash
        report(event_log, "000", seen, 1.0)
    report(event_log, "baseline", 900, 1.0)
    assert (meter.exceeded_limit(), meter.patches) == ("", 200)
    start(event_log, "001")
    report(event_log, "001", 50, 1.0)
    assert meter.exceeded_limit() == "250 patches"
    assert UsageTracker(Limits(patches=250), event_log).exceeded_limit(), (
        "a later session knows it at once"
    )
    assert not UsageTracker(Limits(patches=251), event_log).exceeded_limit()


def test_gpu_seconds_are_shares_of_a_gpu_over_all_sessions(event_log: EventLog) -> None:
    start(event_log, "000", gpus=0.25)
    report(event_log, "000", 100, 8.0)
    start(event_log, "000", gpus=1.0)  # goes on, on a whole one; its seconds go on too
    report(event_log, "000", 100, 8.0)
    report(event_log, "000", 200, 11.0)
    start(event_log, "001")
    report(event_log, "001", 100, 100.0)  # on a CPU
    meter = UsageTracker(Limits(gpu_seconds=5), event_log)
    assert meter.exceeded_limit() == "5 GPU-seconds"
    assert meter.gpu_seconds == pytest.approx(0.25 * 8 + 3)


def test_time_is_of_this_session(event_log: EventLog) -> None:
    assert UsageTracker(Limits(seconds=1e-9), event_log).exceeded_limit()
    assert not UsageTracker(Limits(seconds=60), event_log).exceeded_limit()
    assert not UsageTracker(Limits(), event_log).exceeded_limit()


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"patches": 0}, {"gpu_seconds": -1}])
def test_a_limit_is_above_nothing(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(wrong)
