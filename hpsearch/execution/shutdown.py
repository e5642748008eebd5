"""Graceful shutdown on Ctrl-C and SIGTERM: trials save, then the search ends."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

PATIENCE = 20.0
"""Seconds that trials have to leave; Kubernetes gives a whole process 30."""


@dataclass
class Farewell:
    """Whether a session is about to end."""

    tell: Callable[[], object]
    """Tells the workers."""
    busy: Callable[[], bool]
    """Whether any trial still runs."""
    asked: bool = False
    """Whether the user wants it to end."""
    _since: float | None = None

    @property
    def begun(self) -> bool:
        """Whether trials that raise now have left, and no new one begins."""
        return self._since is not None

    def over(self, wanted: bool) -> bool:
        """Whether the session can end now, if it is wanted to.

        What must not happen in a handler of signals happens here: Tune asks several times a second.
        """
        if not (wanted or self.asked or self.begun):
            return False
        if self._since is None:
            self._since = time.monotonic()
            self.tell()
        return not self.busy() or time.monotonic() - self._since > PATIENCE

    @contextmanager
    def on_ctrl_c(self) -> Iterator[None]:
        """Ctrl-C asks for the end; a second one interrupts whatever is being done."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def ask(number: int, frame: FrameType | None) -> None:
            self.asked = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def heed_sigterm() -> None:
    """From now on, until something else (Ray, when it starts) takes the signal for itself."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _as_ctrl_c)


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    """Whatever Ctrl-C means now; an interrupt where it is ignored, as in a shell's background."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt


class Preempted(ConnectionError):
    """A trial was told to leave; it has been saved, and can go on elsewhere or later."""
