"""A search that comes before its nodes: it asks the cluster's autoscaler, and waits."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ray.autoscaler.sdk import request_resources

from hpsearch.errors import UserError
from hpsearch.running.ray_tune import check_room
from hpsearch.search.resources import Resources, wishes

PAUSE = 5.0
"""Seconds between two looks."""


@contextmanager
def room(asked: Resources, at_once: int | None, say: Callable[[str], None]) -> Iterator[None]:
    """Nodes for so many trials at once, while inside; afterwards none is kept idle.

    Where no autoscaler listens, this waits until somebody starts the nodes.

    Where trials may hold a GPU or a TPU, it is GPUs that are asked for.

    Args:
        asked: by each trial.
        at_once: trials; None for one, and whatever else there is.
        say: told once, if there is something to wait for.
    """
    wish = wishes(asked, ())[0]
    request_resources(bundles=[wish.bundle()] * (at_once or 1))
    try:
        _wait(asked, at_once, say)
        yield
    finally:
        request_resources(bundles=[])


def _wait(asked: Resources, at_once: int | None, say: Callable[[str], None]) -> None:
    said = False
    while True:
        try:
            return check_room(asked, at_once)
        except UserError as error:
            if not said:
                say(f"waiting for nodes: {str(error).partition(';')[0]}")
                said = True
        time.sleep(PAUSE)
