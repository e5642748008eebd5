"""What a search has cost, read from its ledger, also of earlier sessions."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from hpsearch.search.stopping import Limits, Meter
from hpsearch.tracking.event_log import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def start(ledger: Ledger, trial: str, *, gpus: float = 0.0, kind: str = "trial") -> None:
    ledger.append("start", trial=trial, kind=kind, place={"kind": "gpu", "gpus": gpus})


def report(ledger: Ledger, trial: str, seen: int, seconds: float) -> None:
    ledger.append("report", trial=trial, seen=seen, seconds=seconds)


def test_patches_are_counted_once_and_only_of_trials(ledger: Ledger) -> None:
    meter = Meter(Limits(patches=250), ledger)
    start(ledger, "000")
    start(ledger, "baseline", kind="yardstick")
    for seen in (100, 200, 200):  # one told again after a crash
        report(ledger, "000", seen, 1.0)
    report(ledger, "baseline", 900, 1.0)
    assert (meter.reached(), meter.patches) == ("", 200)
    start(ledger, "001")
    report(ledger, "001", 50, 1.0)
    assert meter.reached() == "250 patches"
    assert Meter(Limits(patches=250), ledger).reached(), "a later session knows it at once"
    assert not Meter(Limits(patches=251), ledger).reached()


def test_gpu_seconds_are_shares_of_a_gpu_over_all_sessions(ledger: Ledger) -> None:
    start(ledger, "000", gpus=0.25)
    report(ledger, "000", 100, 8.0)
    start(ledger, "000", gpus=1.0)  # goes on, on a whole one; its seconds go on too
    report(ledger, "000", 100, 8.0)
    report(ledger, "000", 200, 11.0)
    start(ledger, "001")
    report(ledger, "001", 100, 100.0)  # on a CPU
    meter = Meter(Limits(gpu_seconds=5), ledger)
    assert meter.reached() == "5 GPU-seconds"
    assert meter.gpu_seconds == pytest.approx(0.25 * 8 + 3)


def test_time_is_of_this_session(ledger: Ledger) -> None:
    assert Meter(Limits(seconds=1e-9), ledger).reached()
    assert not Meter(Limits(seconds=60), ledger).reached()
    assert not Meter(Limits(), ledger).reached()


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"patches": 0}, {"gpu_seconds": -1}])
def test_a_limit_is_above_nothing(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(wrong)
