"""SIGTERM does what Ctrl-C does: Kubernetes, systemd and ``kill`` send it before they use force."""

import signal
import threading
from types import FrameType


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
