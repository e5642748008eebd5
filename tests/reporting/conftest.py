"""Runs as a search leaves them, put together by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from hpsearch.config import Adam, BatchHard, Denoised, HardMargin, PKSampler, TrialConfig
from hpsearch.tracking.event_log import Event
from hpsearch.tracking.run_state import Run, RunStatus

MakeRun = Callable[..., Run]


def _report(seen: int, value: float | None, **metrics: float) -> Event:
    """One report; a value of None stands for a constant encoder with its perfect retrieval."""
    tasks = {"val/verification": 0.6, "val/matching": 0.1, "val/retrieval": 1.0}
    guard = {"val/mAP": 0.36 if value is None else value, "val/collapsed": float(value is None)}
    return {
        "event": "report",
        "seen": seen,
        "objective": value or 0.0,
        "metrics": {"train/loss": 0.7, **tasks, **guard, **metrics},
        "seconds": seen / 100,
        "time": 100 + seen / 100,
    }


def _config(*, groups: int = 32, rate: float = 1e-3, alpha: float = 1.0) -> TrialConfig:
    return TrialConfig(
        loss=BatchHard(margin=HardMargin(alpha=alpha)),
        sampler=PKSampler(groups=groups, views=4),
        optimizer=Adam.model_validate({"lr": rate}),
        input=Denoised(),
        patches=1000,
    )


def _run(
    number: int,
    status: RunStatus = "completed",
    curve: dict[int, float | None] | None = None,
    *,
    kind: str = "trial",
    metrics: dict[str, float] | None = None,
    **settings: Any,
) -> Run:
    """A run that started at second 100; ``curve`` holds the objective by patches seen."""
    return Run(
        id=f"run{number}",
        number=number,
        config=_config(**settings),
        started=100.0,
        status=status,
        reports=tuple(_report(s, v, **metrics or {}) for s, v in (curve or {}).items()),
        ended=None if status == "running" else 120.0,
        kind=kind,
    )


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    return _run


@pytest.fixture(scope="session")
def mixed() -> list[Run]:
    """One trial of each kind of ending, one that has not reported, and a yardstick."""
    return [
        _run(0, "completed", {500: 0.5, 1010: 0.7}, rate=1e-3),
        _run(1, "completed", {500: 0.4, 1000: 0.6}, rate=2e-3, metrics={"train/loss": 0.4}),
        _run(2, "pruned", {500: 0.45}, groups=64),
        _run(3, "collapsed", {500: 0.9, 600: None}, rate=0.1),
        _run(4, "diverged", {250: None}, rate=1.0),
        _run(5, "failed", {500: 0.99}, alpha=0.2),
        _run(6, "interrupted", {500: 0.3}),
        _run(7, "running"),
        _run(8, "completed", {1000: 0.8}, kind="baseline"),
    ]
