"""A session that is to end waits until its trials have left, and no longer than it may."""

import os
import signal

import pytest

from hpsearch.execution import shutdown as module
from hpsearch.execution.shutdown import GracefulShutdown


def test_it_ends_when_the_last_trial_has_left() -> None:
    messages, running = [], [1, 2]
    shutdown = GracefulShutdown(
        notify_workers=lambda: messages.append(1), has_running_trials=lambda: bool(running)
    )
    assert not shutdown.should_exit(False)
    assert not shutdown.in_progress
    assert not shutdown.should_exit(True)
    assert shutdown.in_progress
    assert not shutdown.should_exit(False), "what has begun goes on"
    running.clear()
    assert shutdown.should_exit(False)
    assert messages == [1], "the workers are told once"


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_PERIOD_S", 0.0)
    shutdown = GracefulShutdown(notify_workers=lambda: None, has_running_trials=lambda: True)
    shutdown.should_exit(True)
    assert shutdown.should_exit(True)


def test_ctrl_c_asks_once_and_interrupts_the_second_time() -> None:
    shutdown = GracefulShutdown(notify_workers=lambda: None, has_running_trials=lambda: False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with shutdown.handle_sigint():
            os.kill(os.getpid(), signal.SIGINT)
            assert shutdown.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert shutdown.should_exit(False)
