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
from ray.core.generated.autoscaler_pb2 import (
    DrainNodeReason,  # pyright: ignore[reportAttributeAccessIssue]
)
from ray.exceptions import RayError

from hpsearch.data.process_pool import end_with_parent
from hpsearch.execution.draining_patches import gcs_client

METADATA_URL = "http://169.254.169.254"
"""Address of the metadata server of both clouds; an IP, so that no name server is needed."""
METADATA_TIMEOUT_S = 10.0
"""Seconds that the metadata server may take for an answer."""
GCP_NOTICE_S = 30.0
"""Seconds from Google Cloud's notice to its end of the machine, at best."""
GCP_LONG_POLL_S = 5
"""Seconds after which Google Cloud's server answers even if nothing has changed."""


def aws_seconds_until_interruption(metadata: str) -> float | None:
    """Seconds until EC2 interrupts this spot instance; None without a notice.

    EC2 gives notice two minutes ahead, and recommends a request every 5 s (EC2 User Guide,
    "Spot Instance interruption notices"). Its rebalance recommendation is
    ignored: it means that a machine is at risk, and a drained machine takes no trials any more.

    Raises:
        OSError, HTTPException, ValueError, LookupError, TypeError: if there is no answer, or none
            with that meaning.
    """
    key = "X-aws-ec2-metadata-token"
    _, token = _get(metadata, "/latest/api/token", {f"{key}-ttl-seconds": "60"}, method="PUT")
    page = "/latest/meta-data/spot/instance-action"
    status, answer = _get(metadata, page, {key: token}, ok_statuses=(200, 404))
    if status == 404:
        return None
    return (datetime.fromisoformat(json.loads(answer)["time"]) - datetime.now(UTC)).total_seconds()


def gcp_seconds_until_preemption(metadata: str) -> float | None:
    """Seconds until Google Cloud ends this machine; nothing as long as it is not preempted.

    The question hangs until something changes (Compute Engine, "Create and use Spot VMs").
    Maintenance is not polled: a spot machine in its way is preempted, which this reports.

    Raises:
        OSError, HTTPException: if there is no answer.
    """
    path = (
        f"/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec={GCP_LONG_POLL_S}"
    )
    _, answer = _get(metadata, path, {"Metadata-Flavor": "Google"})
    return GCP_NOTICE_S if answer.strip() == "TRUE" else None


def _get(
    metadata: str,
    path: str,
    headers: dict[str, str],
    *,
    method: str = "GET",
    ok_statuses: Sequence[int] = (200,),
) -> tuple[int, str]:
    """Status and words of an answer; never through a proxy."""
    with closing(
        HTTPConnection(urlsplit(metadata).netloc, timeout=METADATA_TIMEOUT_S)
    ) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        if answer.status not in ok_statuses:
            raise OSError(f"it answers {answer.status}")
        return answer.status, answer.read().decode()


PROVIDERS: dict[str, tuple[Callable[[str], float | None], float]] = {
    "aws": (aws_seconds_until_interruption, 5.0),
    "gcp": (gcp_seconds_until_preemption, 1.0),
}
"""Function and poll interval in seconds, by cloud."""


@dataclass(frozen=True)
class RayletProcess:
    """A raylet: its process, its node's id, and the address of its head."""

    pid: int
    node_id: str
    head_address: str
    session_dir: str | None


def local_raylets(folder: str | None = None) -> list[RayletProcess]:
    """The workers that this user runs on this machine, or in this container; never a head.

    Ray starts a raylet with its node's id and the head's address as arguments, so that neither
    needs the notice. Those of other users are left alone: they would be sent our token.

    Args:
        folder: only the one with this ``--temp-dir``, of several on one machine.
    """
    found = [_parse_raylet(process) for process in Path("/proc").glob("[0-9]*")]
    return [one for one in found if one and folder in (None, one.session_dir)]


def _parse_raylet(process: Path) -> RayletProcess | None:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        foreign = process.stat().st_uid != os.getuid()
    except OSError:  # it has just ended
        return None
    if foreign or Path(words[0]).name != "raylet" or "--head" in words:
        return None
    drained = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    node, head = drained.get("--node_id"), drained.get("--gcs-address")
    return (
        RayletProcess(int(process.name), node, head, drained.get("--temp_dir"))
        if node and head
        else None
    )


HEAD_TIMEOUT_S = 20.0
"""Seconds that the head may take before the notice is repeated."""
logger = logging.getLogger("leave")


def request_drain(raylet: RayletProcess, seconds: float) -> bool:
    """Send a worker's head the notice that its machine goes; True if the head has it.

    A process of its own does it, since Ray ends one whose head does not answer; a fork, since to
    start another Python with Ray takes seconds, on a busy machine ten.
    """
    teller = multiprocessing.get_context("fork").Process(target=_drain_node, args=(raylet, seconds))
    teller.start()
    teller.join(min(max(seconds, 2), HEAD_TIMEOUT_S))  # a clock may be wrong
    if teller.is_alive():
        teller.kill()
        teller.join()
        logger.warning("the head %s does not answer", raylet.head_address)
    return teller.exitcode == 0


def _drain_node(raylet: RayletProcess, seconds: float) -> None:
    """As ``ray drain-node`` does; the token is found where all of Ray's commands find it."""
    end_with_parent()
    deadline = int(1000 * (time.time() + max(seconds, 1)))
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    try:
        client = gcs_client(raylet.head_address)
        # a head accepts a notice of any node, and forgets those that it does not know
        (taken,), why = client.check_alive([NodeID.from_hex(raylet.node_id)]), "it is not there yet"
        if taken:
            taken, why = client.drain_node(raylet.node_id, reason, "it is taken away", deadline)
    except RayError as error:
        taken, why = False, str(error)
    if not taken:
        logger.warning("the head %s was not notified: %s", raylet.head_address, why)
        sys.exit(1)
    logger.warning(
        "this machine goes in %.0f s, and its head %s knows", seconds, raylet.head_address
    )


@dataclass
class PreemptionWatcher:
    """Polls a cloud, and notifies every worker's head once."""

    seconds_until_preemption: Callable[[], float | None]
    request_drain: Callable[[RayletProcess, float], bool] = request_drain
    session_dir: str | None = None
    notified: set[str] = field(default_factory=set)
    """Ids of their nodes."""
    _unreachable: bool = False

    def poll(self) -> None:
        """Ask once; whatever the answer is, and if there is none, it may be asked again."""
        try:
            left = self.seconds_until_preemption()
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
            if not self._unreachable:
                logger.warning("the metadata server does not answer (%s); it is asked again", error)
            self._unreachable = True
            return
        if self._unreachable:
            logger.warning("the metadata server answers again")
        self._unreachable = False
        if left is not None:
            self._drain_all(left)

    def _drain_all(self, left: float) -> None:
        for worker in local_raylets(self.session_dir):
            if worker.node_id not in self.notified and self.request_drain(worker, left):
                self.notified.add(worker.node_id)


def drain_and_wait(seconds: float, folder: str | None = None) -> bool:
    """Notify the head, and wait until the workers here have ended; True if it has the notice.

    A worker ends by itself as soon as no trial is left on it.
    """
    there = {worker.node_id for worker in local_raylets(folder)}
    if not there:
        logger.warning("no worker runs here")
    end = time.monotonic() + seconds
    watch = PreemptionWatcher(lambda: end - time.monotonic(), session_dir=folder)
    while local_raylets(folder) and time.monotonic() < end:
        watch.poll()
        time.sleep(1)
    return there <= watch.notified


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as a program; it ends for ``now`` alone."""
    assert __doc__
    parser = argparse.ArgumentParser("leave", description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["now", *PROVIDERS])
    parser.add_argument("--seconds", type=float, default=25, help="of `now`: how long there is")
    parser.add_argument("--temp-dir", help="of the worker, if several run on this machine")
    parser.add_argument("--metadata", default=METADATA_URL, help="where the cloud's server is")
    drained = parser.parse_args(arguments)
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    if drained.mode == "now":
        return 0 if drain_and_wait(drained.seconds, drained.temp_dir) else 1
    cloud, pause = PROVIDERS[drained.mode]
    logger.warning("asks %s whether this machine is about to be taken away", drained.metadata)
    watch = PreemptionWatcher(lambda: cloud(drained.metadata), session_dir=drained.temp_dir)
    while True:
        watch.poll()
        time.sleep(pause)


if __name__ == "__main__":
    sys.exit(main())
