"""Ray's word that a machine is about to be taken away.

A cloud tells some time before it takes a spot machine: two minutes on AWS, half a minute on Google
Cloud and Kubernetes. Whoever hears it (Ray's autoscaler, a preStop hook, a person) tells the head
with ``ray drain-node``, and every worker asks the head.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray._private import state
from ray.exceptions import RayError

EVERY = 2.0
"""Seconds between two questions; the head answers thousands a second."""


@contextmanager
def watched() -> Iterator[Callable[[], bool]]:
    """Whether this machine is about to go; a thread asks, so the answer costs nothing."""
    given, over = threading.Event(), threading.Event()
    here = ray.get_runtime_context().get_node_id()

    def ask() -> None:
        while not over.is_set() and not given.is_set():
            if here in draining():
                given.set()
            over.wait(EVERY)

    threading.Thread(target=ask, name="notice", daemon=True).start()
    try:
        yield given.is_set
    finally:
        over.set()


def draining() -> set[str]:
    """Ids of the nodes that are about to go; none if the head does not answer."""
    try:  # there is no public way; Ray's own trainers ask in this one
        return set(state.state.get_draining_nodes())
    except (RayError, RuntimeError, ConnectionError):
        return set()
