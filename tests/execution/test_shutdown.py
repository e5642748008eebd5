"""A session that is to end waits until its trials have left, and no longer than it may."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.execution import shutdown as module
from hpsearch.execution.shutdown import (
    GracefulShutdown,
    hangup_blocked,
    install_termination_handlers,
)


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


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of these tests, and afterward those before."""
    known = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in known.items():
        signal.signal(number, handler)


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_a_command_is_ctrl_c(number: int) -> None:
    install_termination_handlers()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.usefixtures("handlers")
def test_a_terminal_that_closes_signals_twice_and_the_trials_still_save() -> None:
    install_termination_handlers()
    shutdown = GracefulShutdown(notify_workers=lambda: None, has_running_trials=lambda: False)
    with shutdown.handle_sigint():
        os.kill(os.getpid(), signal.SIGHUP)
        assert shutdown.requested
        os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.usefixtures("handlers")
def test_a_batch_system_and_its_shell_both_signal_and_the_trials_still_save(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_termination_handlers()
    shutdown = GracefulShutdown(notify_workers=lambda: None, has_running_trials=lambda: False)
    with shutdown.handle_sigint():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert shutdown.requested
        monkeypatch.setattr(module, "SAME_REQUEST_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("handlers")
def test_a_command_under_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    install_termination_handlers()
    os.kill(os.getpid(), signal.SIGHUP)


@pytest.mark.usefixtures("handlers")
def test_ray_s_processes_do_not_receive_the_hangup_and_the_driver_does() -> None:
    install_termination_handlers()
    blocked = hangup_blocked()
    blocked.__enter__()
    signal.pthread_kill(threading.get_ident(), signal.SIGHUP)
    child = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(KeyboardInterrupt):
            blocked.__exit__(None, None, None)
        line = next(
            line
            for line in Path(f"/proc/{child.pid}/status").read_text().splitlines()
            if line.startswith("SigBlk")
        )
        assert int(line.split()[1], 16) & 1 << (signal.SIGHUP - 1)
    finally:
        child.kill()
        child.wait()
