"""Whether a cluster's head still answers: without it Ray ends this process, in the middle of it."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray

EVERY = 1.0
"""Seconds between two looks."""
RAY_WAITS = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's setting: seconds without a head after which it ends a process; 60 if unset."""


@contextmanager
def head_watched(gone: Callable[[], None]) -> Iterator[None]:
    """Call ``gone`` from another thread once the head has not answered for too long.

    That is half the time that Ray waits, so that there is time for a last word.
    """
    over, patience = threading.Event(), float(os.environ.get(RAY_WAITS, "60")) / 2
    address = ray.get_runtime_context().gcs_address

    def look() -> None:
        heard = time.monotonic()
        while not over.wait(EVERY):
            if answers(address):
                heard = time.monotonic()
            elif time.monotonic() - heard > patience:
                gone()
                return

    threading.Thread(target=look, name="head", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def answers(address: str, *, patience: float = 2.0) -> bool:
    """Whether somebody listens at ``HOST:PORT``, within so many seconds."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=patience).close()
    except (OSError, OverflowError):  # the latter of a port that there cannot be
        return False
    return True
