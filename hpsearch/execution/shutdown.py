"""Graceful shutdown on Ctrl-C and SIGTERM: trials save, then the search ends."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

GRACE_PERIOD_S = 20.0
"""Seconds that trials have to leave; Kubernetes gives a whole process 30."""


@dataclass
class GracefulShutdown:
    """Whether a session is about to end."""

    notify_workers: Callable[[], object]
    """Tells the workers."""
    has_running_trials: Callable[[], bool]
    """Whether any trial still runs."""
    requested: bool = False
    """Whether the user wants it to end."""
    _since: float | None = None

    @property
    def in_progress(self) -> bool:
        """Whether trials that raise now have left, and no new one begins."""
        return self._since is not None

    def should_exit(self, wanted: bool) -> bool:
        """Whether the session can end now, if it is wanted to.

        What must not happen in a handler of signals happens here: Tune asks several times a second.
        """
        if not (wanted or self.requested or self.in_progress):
            return False
        if self._since is None:
            self._since = time.monotonic()
            self.notify_workers()
        return not self.has_running_trials() or time.monotonic() - self._since > GRACE_PERIOD_S

    @contextmanager
    def handle_sigint(self) -> Iterator[None]:
        """Ctrl-C asks for the end; a second one interrupts whatever is being done."""
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


def install_sigterm_handler() -> None:
    """From now on, until something else (Ray, when it starts) takes the signal for itself."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _raise_sigint)


def _raise_sigint(number: int, frame: FrameType | None) -> None:
    """Whatever Ctrl-C means now; an interrupt where it is ignored, as in a shell's background."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt


class TrialInterrupted(ConnectionError):
    """A trial was told to leave; it has been saved, and can go on elsewhere or later."""
