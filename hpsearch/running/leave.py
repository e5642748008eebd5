"""Tells the head that this machine is about to go, so that its trials save themselves and leave.

A program of its own, beside the worker that it speaks for::

    python -m hpsearch.running.leave aws    asks EC2 whether it interrupts this spot instance
    python -m hpsearch.running.leave gcp    asks Google Cloud whether it preempts this machine
    python -m hpsearch.running.leave now    tells at once, and waits until the worker has ended

A worker whose ``ray start --block`` is sent SIGTERM, as Kubernetes does, needs none of it: Ray
tells the head by itself.
"""

import argparse
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException

from ray import NodeID
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated.autoscaler_pb2 import (
    DrainNodeReason,  # pyright: ignore[reportAttributeAccessIssue]
)
from ray.exceptions import RayError

from hpsearch.running.clouds import CLOUDS, METADATA
from hpsearch.running.raylets import Worker, workers

HEAD_PATIENCE = 20.0
"""Seconds that the head may take before it is told again."""
log = logging.getLogger("leave")


def tell(worker: Worker, seconds: float) -> bool:
    """Tell a worker's head that its machine goes in so many seconds; whether the head knows now.

    A process of its own does it, since Ray ends one whose head does not answer; a fork, since to
    start another Python with Ray takes seconds, on a busy machine ten.
    """
    teller = multiprocessing.get_context("fork").Process(target=_drain, args=(worker, seconds))
    teller.start()
    teller.join(min(max(seconds, 2), HEAD_PATIENCE))  # a clock may be wrong
    if teller.is_alive():
        teller.kill()
        teller.join()
        log.warning("the head %s does not answer", worker.head)
    return teller.exitcode == 0


def _drain(worker: Worker, seconds: float) -> None:
    """As ``ray drain-node`` does; the token is found where all of Ray's commands find it."""
    deadline = int(1000 * (time.time() + max(seconds, 1)))
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    try:
        client = GcsClient(address=worker.head)
        # a head says yes to whatever node it is told of, and forgets those it does not know
        (taken,), why = client.check_alive([NodeID.from_hex(worker.node)]), "it is not there yet"
        if taken:
            taken, why = client.drain_node(worker.node, reason, "it is taken away", deadline)
    except RayError as error:
        taken, why = False, str(error)
    if not taken:
        log.warning("the head %s was not told: %s", worker.head, why)
        sys.exit(1)
    log.warning("this machine goes in %.0f s, and its head %s knows", seconds, worker.head)


@dataclass
class Watch:
    """Asks a cloud, and tells every worker's head once."""

    ask: Callable[[], float | None]
    tell: Callable[[Worker, float], bool] = tell
    folder: str | None = None
    told: set[str] = field(default_factory=set)
    """Ids of their nodes."""
    _deaf: bool = False

    def look(self) -> None:
        """Ask once; whatever the answer is, and if there is none, it may be asked again."""
        try:
            left = self.ask()
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
            if not self._deaf:
                log.warning("the metadata server does not answer (%s); it is asked again", error)
            self._deaf = True
            return
        if self._deaf:
            log.warning("the metadata server answers again")
        self._deaf = False
        if left is not None:
            self._tell_all(left)

    def _tell_all(self, left: float) -> None:
        for worker in workers(self.folder):
            if worker.node not in self.told and self.tell(worker, left):
                self.told.add(worker.node)


def leave(seconds: float, folder: str | None = None) -> bool:
    """Tell the head at once, and wait as long until the workers here have ended; whether it knows.

    A worker ends by itself as soon as no trial is left on it.
    """
    there = {worker.node for worker in workers(folder)}
    if not there:
        log.warning("no worker runs here")
    end = time.monotonic() + seconds
    watch = Watch(lambda: end - time.monotonic(), folder=folder)
    while workers(folder) and time.monotonic() < end:
        watch.look()
        time.sleep(1)
    return there <= watch.told


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; it ends for ``now`` alone."""
    assert __doc__
    parser = argparse.ArgumentParser("leave", description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["now", *CLOUDS])
    parser.add_argument("--seconds", type=float, default=25, help="of `now`: how long there is")
    parser.add_argument("--temp-dir", help="of the worker, if several run on this machine")
    parser.add_argument("--metadata", default=METADATA, help="where the cloud's server is")
    told = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    if told.mode == "now":
        return 0 if leave(told.seconds, told.temp_dir) else 1
    cloud, pause = CLOUDS[told.mode]
    log.warning("asks %s whether this machine is about to be taken away", told.metadata)
    watch = Watch(lambda: cloud(told.metadata), folder=told.temp_dir)
    while True:
        watch.look()
        time.sleep(pause)


if __name__ == "__main__":
    sys.exit(main())
