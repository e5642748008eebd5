"""Graceful shutdown on Ctrl-C, SIGTERM and SIGHUP: trials save, then the search ends."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

GRACE_PERIOD_S = 20.0
"""Seconds that trials have to save and stop; Kubernetes gives a whole process 30."""
SAME_REQUEST_S = 5.0
"""Seconds within which further signals to end are the same request: a batch system may signal a
process and its shell, which passes the signal on; a terminal and its shell both send SIGHUP."""


@dataclass
class GracefulShutdown:
    """State of a graceful shutdown of a session."""

    notify_workers: Callable[[], object]
    """Asks the workers to save and stop."""
    has_running_trials: Callable[[], bool]
    """Returns whether any trial is running."""
    requested: bool = False
    """True if the user asked for it."""
    _since: float | None = None

    @property
    def in_progress(self) -> bool:
        """True while trials save and stop, and no new one starts."""
        return self._since is not None

    def should_exit(self, wanted: bool) -> bool:
        """Start or continue the shutdown; return whether the session can end now.

        Tune calls this several times a second. It does what a signal handler must not do.

        Args:
            wanted: whether a limit asks for the shutdown.
        """
        if not (wanted or self.requested or self.in_progress):
            return False
        if self._since is None:
            self._since = time.monotonic()
            self.notify_workers()
        return not self.has_running_trials() or time.monotonic() - self._since > GRACE_PERIOD_S

    @contextmanager
    def handle_sigint(self) -> Iterator[None]:
        """While inside, the first Ctrl-C requests the shutdown; the second interrupts at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def request(number: int, frame: FrameType | None) -> None:
            self.requested = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, request)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def deferred_sigint() -> Iterator[Callable[[], bool]]:
    """While inside, the first Ctrl-C waits for the caller to save; the second interrupts at once.

    Yields:
        Function that returns whether there was one.
    """
    shutdown = GracefulShutdown(notify_workers=lambda: None, has_running_trials=lambda: False)
    with shutdown.handle_sigint():
        yield lambda: shutdown.requested


def install_termination_handlers() -> None:
    """Treat SIGTERM and SIGHUP as Ctrl-C; Ray replaces the handler of SIGTERM when it starts.

    SIGHUP, which a terminal sends when it closes, stays ignored where it is, as with ``nohup``.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    _terminated_at[:] = [float("-inf")]
    signal.signal(signal.SIGTERM, _raise_sigint)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _raise_sigint)


@contextmanager
def hangup_blocked() -> Iterator[None]:
    """Block SIGHUP in processes that are started inside; for this thread it waits until the end.

    A terminal that closes signals all processes of the command, and Ray's must outlive it until the
    trials have saved.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_terminated_at = [float("-inf")]
"""Monotonic time of the last signal to end."""


def _raise_sigint(number: int, frame: FrameType | None) -> None:
    """Call the handler of Ctrl-C; interrupt where it is ignored, as in a shell's background.

    A signal that follows within ``SAME_REQUEST_S``, and any SIGHUP, is ignored: a second Ctrl-C
    would end the search at once.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    now = time.monotonic()
    is_same, _terminated_at[:] = now - _terminated_at[0] < SAME_REQUEST_S, [now]
    if is_same:
        return
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt


class TrialInterrupted(ConnectionError):
    """End of an attempt that was asked to stop, after a checkpoint from which it can resume."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, where IPython is loaded."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
