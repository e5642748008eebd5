"""Preemption notices and the end of a session, on which a trial saves and stops at once.

A cloud gives notice before it takes a spot machine: two minutes on AWS, half a minute on Google
Cloud and Kubernetes. The preemption agent, Ray on SIGTERM, or a person with ``ray drain-node``
reports it to the head, and every worker asks the head.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError

from hpsearch.execution.draining_patches import draining_nodes

PREEMPTION_POLL_S = 2.0
"""Seconds between two requests to the head, which answers thousands a second."""


@contextmanager
def stop_requested(is_shutting_down: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Provide a function that returns whether to save and stop; a thread asks, so it costs nothing.

    Args:
        is_shutting_down: returns whether the session is about to end.
    """
    given, over = threading.Event(), threading.Event()
    here = ray.get_runtime_context().get_node_id()

    def poll() -> None:
        while not over.is_set() and not given.is_set():
            if here in draining_node_ids() or is_shutting_down():
                given.set()
            over.wait(PREEMPTION_POLL_S)

    threading.Thread(target=poll, name="notice", daemon=True).start()
    try:
        yield given.is_set
    finally:
        over.set()


def draining_node_ids() -> set[str]:
    """Ids of the nodes that are about to go away; none if the head does not answer."""
    try:
        return draining_nodes()
    except (RayError, RuntimeError, ConnectionError):
        return set()
