"""A session that is to end waits until its trials have left, and no longer than it may."""

import os
import signal

import pytest

from hpsearch.execution import shutdown as module
from hpsearch.execution.shutdown import Farewell


def test_it_ends_when_the_last_trial_has_left() -> None:
    told, running = [], [1, 2]
    farewell = Farewell(tell=lambda: told.append(1), busy=lambda: bool(running))
    assert not farewell.over(False)
    assert not farewell.begun
    assert not farewell.over(True)
    assert farewell.begun
    assert not farewell.over(False), "what has begun goes on"
    running.clear()
    assert farewell.over(False)
    assert told == [1], "the workers are told once"


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    farewell = Farewell(tell=lambda: None, busy=lambda: True)
    farewell.over(True)
    assert farewell.over(True)


def test_ctrl_c_asks_once_and_interrupts_the_second_time() -> None:
    farewell = Farewell(tell=lambda: None, busy=lambda: False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with farewell.on_ctrl_c():
            os.kill(os.getpid(), signal.SIGINT)
            assert farewell.asked
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert farewell.over(False)
