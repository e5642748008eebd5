"""Preemption agent: watches the cloud's notices and drains this machine's Ray nodes."""

import argparse
import json
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from ray import NodeID
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated.autoscaler_pb2 import (
    DrainNodeReason,  # pyright: ignore[reportAttributeAccessIssue]
)
from ray.exceptions import RayError

from hpsearch.data.process_pool import end_with_parent

METADATA = "http://169.254.169.254"
"""Where both clouds tell a machine about itself; no name, so that no name server is needed."""
PATIENCE = 10.0
"""Seconds that the metadata server may take for an answer."""
PREEMPTION = 30.0
"""Seconds from Google Cloud's notice to its end of the machine, at best."""
HANGING = 5
"""Seconds after which Google Cloud's server answers even if nothing has changed."""


def aws(metadata: str) -> float | None:
    """Seconds until EC2 interrupts this spot instance; nothing as long as it has not said so.

    EC2 tells two minutes ahead, and asks to be asked every 5 s (EC2 User Guide, "Spot Instance
    interruption notices"). Its rebalance recommendation is not heeded: it says that a machine is at
    risk, and a machine that was told to leave takes no trials any more.

    Raises:
        OSError, HTTPException, ValueError, LookupError, TypeError: if there is no answer, or none
            that says so.
    """
    key = "X-aws-ec2-metadata-token"
    _, token = _ask(metadata, "/latest/api/token", {f"{key}-ttl-seconds": "60"}, method="PUT")
    page = "/latest/meta-data/spot/instance-action"
    status, said = _ask(metadata, page, {key: token}, fine=(200, 404))
    if status == 404:
        return None
    return (datetime.fromisoformat(json.loads(said)["time"]) - datetime.now(UTC)).total_seconds()


def gcp(metadata: str) -> float | None:
    """Seconds until Google Cloud ends this machine; nothing as long as it is not preempted.

    The question hangs until something changes (Compute Engine, "Create and use Spot VMs").
    Maintenance is not asked for: a spot machine in its way is preempted, and that is told here.

    Raises:
        OSError, HTTPException: if there is no answer.
    """
    path = f"/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec={HANGING}"
    _, said = _ask(metadata, path, {"Metadata-Flavor": "Google"})
    return PREEMPTION if said.strip() == "TRUE" else None


def _ask(
    metadata: str,
    path: str,
    headers: dict[str, str],
    *,
    method: str = "GET",
    fine: Sequence[int] = (200,),
) -> tuple[int, str]:
    """Status and words of an answer; never through a proxy."""
    with closing(HTTPConnection(urlsplit(metadata).netloc, timeout=PATIENCE)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        if answer.status not in fine:
            raise OSError(f"it answers {answer.status}")
        return answer.status, answer.read().decode()


CLOUDS: dict[str, tuple[Callable[[str], float | None], float]] = {
    "aws": (aws, 5.0),
    "gcp": (gcp, 1.0),
}
"""How to ask, and seconds between two questions."""


@dataclass(frozen=True)
class Worker:
    """A raylet: its process, its node's id, and the address of its head."""

    pid: int
    node: str
    head: str
    folder: str | None


def workers(folder: str | None = None) -> list[Worker]:
    """The workers that this user runs on this machine, or in this container; never a head.

    Ray starts a raylet with its node's id and the head's address as arguments, so that neither
    needs to be told. Those of other users are left alone: they would be sent our token.

    Args:
        folder: only the one with this ``--temp-dir``, of several on one machine.
    """
    found = [_worker(process) for process in Path("/proc").glob("[0-9]*")]
    return [one for one in found if one and folder in (None, one.folder)]


def _worker(process: Path) -> Worker | None:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        foreign = process.stat().st_uid != os.getuid()
    except OSError:  # it has just ended
        return None
    if foreign or Path(words[0]).name != "raylet" or "--head" in words:
        return None
    told = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    node, head = told.get("--node_id"), told.get("--gcs-address")
    return Worker(int(process.name), node, head, told.get("--temp_dir")) if node and head else None


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
    end_with_parent()
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
