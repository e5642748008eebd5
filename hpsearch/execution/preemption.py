"""What tells a trial to save at once and leave: the end of a session, or of its machine.

A cloud tells some time before it takes a spot machine: two minutes on AWS, half a minute on Google
Cloud and Kubernetes. Whoever hears it (``leave``, Ray when it is sent SIGTERM, a person with
``ray drain-node``) tells the head, and every worker asks the head.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray._private import state
from ray.exceptions import RayError

PREEMPTION_POLL_S = 2.0
"""Seconds between two questions; the head answers thousands a second."""


@contextmanager
def stop_requested(is_shutting_down: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """Whether to leave; a thread asks, so the answer costs nothing.

    Args:
        is_shutting_down: whether the session is about to end.
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
    """Ids of the nodes that are about to go; none if the head does not answer."""
    try:  # there is no public way; Ray's own trainers ask in this one
        return set(state.state.get_draining_nodes())
    except (RayError, RuntimeError, ConnectionError):
        return set()
