"""Client of a Ray head that drains nodes and lists those that drain, tried with Ray 2.60.

Ray has no public way to do either: ``ray drain-node``, its Serve and its Train use this client
(https://github.com/ray-project/ray/pull/37836), and of the list its authors write that "the user is
internal" (https://github.com/ray-project/ray/pull/42982). A contract test stands in
``tests/execution/test_ray_patches.py``.
"""

from functools import cache
from typing import Any

import ray
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]

GCS_TIMEOUT_S = 10.0
"""Seconds that the head may take to list the nodes that drain."""


def gcs_client(address: str) -> Any:
    """Client of the global control service of a head.

    Args:
        address: HOST:PORT of the head.
    """
    return GcsClient(address=address)


def draining_nodes() -> set[str]:
    """Ids of the nodes of this cluster that are about to go away.

    Raises:
        RayError: if the head does not answer.
    """
    client = _cached_client(ray.get_runtime_context().gcs_address)
    return set(client.get_draining_nodes(timeout=GCS_TIMEOUT_S))


@cache
def _cached_client(address: str) -> Any:
    return gcs_client(address)
