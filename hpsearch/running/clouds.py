"""What a cloud tells a spot machine before it takes it, asked where the cloud has it."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from urllib.parse import urlsplit

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
