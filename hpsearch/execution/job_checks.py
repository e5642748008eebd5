"""Checks of a job before it is queued: address, versions, capacity."""

import json
import os
import platform
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.job_submission import JobSubmissionClient

from hpsearch.data.builtin_sets import BUILTIN_SETS
from hpsearch.errors import UserError
from hpsearch.host_limits import exempt_this_machine_from_proxies, proxy_hint
from hpsearch.redaction import filled_in, holds_password, redacted, refuse_password
from hpsearch.search.resources import Node, Resources

JOB_SERVER_TIMEOUT_S = 10.0
"""Seconds that a server has to identify itself."""
OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that Ray's clients obey even where they are given an address."""
PYTHON_IN_PATH = re.compile(r"/lib/python(\d+\.\d+)/")
"""Version of Python in the path of a library."""
TOKEN_HINT = (
    "{address} wants a token, or another one; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or "
    "RAY_AUTH_TOKEN_PATH, as on the head"
)
START_HINT = (
    "give the dashboard's address, by default port 8265, and start the head with "
    "`ray start --head` and ray[default] installed"
)


def check_address(address: str) -> None:
    """Make sure that something can lie at an address.

    Raises:
        UserError: if it is no address of a job server, or holds a password: it is printed and kept
            in logs.
    """
    refuse_password(address, "--address")
    address = filled_in(address)
    if not address.startswith(("http://", "https://")) or not urlsplit(address).hostname:
        raise UserError(
            f"{redacted(address)!r} is not the address of a job server; give the dashboard's, "
            "for example http://HEAD:8265"
        )


@contextmanager
def address_as_given() -> Iterator[None]:
    """While inside, Ray's clients go to the address that they are given, whatever is set.

    Requests to this machine bypass proxies, also later.
    """
    exempt_this_machine_from_proxies()
    before = {name: os.environ.pop(name) for name in OVERRIDING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def explain_connection_error(address: str, error: Exception) -> str:
    """Reason why an address has no job server; Ray only reports that there is none."""
    return _connection_reason(address, error) + proxy_hint(filled_in(address))


def _connection_reason(address: str, error: Exception) -> str:
    message = f"{type(error).__name__} {error}"
    if re.search(r"\b(401|403)\b|uthenticat", message):
        return TOKEN_HINT.format(address=address)
    try:
        request = urllib.request.Request(f"{filled_in(address).rstrip('/')}/api/version")
        with urllib.request.urlopen(request, timeout=JOB_SERVER_TIMEOUT_S):
            return f"what answers at {address} is not the job server of a Ray head; {START_HINT}"
    except urllib.error.HTTPError as answer:
        if answer.code in (401, 403):
            return TOKEN_HINT.format(address=address)
        return (
            f"what answers at {address} is not a Ray head (it knows no /api/version); {START_HINT}"
        )
    except urllib.error.URLError as silence:
        if isinstance(silence.reason, ssl.SSLError):
            return (
                f"{address} does not answer in TLS, or with a certificate that is not trusted "
                f"here; a head itself speaks http://, and https:// needs a proxy before it"
            )
    except (OSError, ValueError, HTTPException):
        return f"what answers at {address} does not speak HTTP; {START_HINT}"
    return f"no Ray head answers at {address}; {START_HINT}"


def check_versions(address: str, *, head_ray: str, head_python: str | None) -> None:
    """Make sure that what is sent can run on the head.

    Args:
        head_ray: as the head reports it, ``2.60.0``.
        head_python: major and minor, ``3.11``; None if it is not known.

    Raises:
        UserError: if minor versions of Ray or Python differ.
    """
    python = ".".join(platform.python_version_tuple()[:2])
    for what, here, there in (
        ("Ray", ray.__version__, head_ray),
        ("Python", python, head_python or python),
    ):
        if here.split(".")[:2] != there.split(".")[:2]:
            raise UserError(
                f"{address} runs {what} {there}, but this is {what} {here}; install the same on "
                "both, with constraints.txt or one image (a cluster's nodes must agree as well)"
            )


def check_arguments(arguments: Sequence[str]) -> None:
    """Make sure that no argument holds a password: everybody who reaches the dashboard sees them.

    Raises:
        UserError: if one does; it is not repeated.
    """
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if holds_password(argument):
            option = argument if argument.startswith("--") else before
            where = option.partition("=")[0] if option.startswith("--") else "an argument"
            raise UserError(
                f"{where} holds a password, and jobs can be read by everybody who reaches the "
                "dashboard; leave it out of the address, and set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD (for PostgreSQL PGUSER and PGPASSWORD) on the head, or "
                "name a variable that is set there in its place: '$NAME'"
            )


def check_data(data: str) -> None:
    """Make sure that the head can see a patch store, as far as that is known from here.

    Args:
        data: a set by name, or a path on the cluster.

    Raises:
        UserError: if it is a path that cannot be one of the head's.
    """
    if data in BUILTIN_SETS:
        return
    if not Path(data).is_absolute() and not data.startswith("~/"):
        raise UserError(
            f"--data {data} is a path relative to this folder, which the cluster does not see; "
            "copy the store to a disk of the cluster, and give its absolute path there"
        )


def check_capacity(nodes: Sequence[Node], asked: Resources, max_concurrent: int | None) -> None:
    """Make sure that the cluster has room for a trial, and for so many at once.

    Raises:
        UserError: naming what exists.
    """
    from hpsearch.execution.placement import ResourceAllocator  # ray.tune takes more than a second

    try:
        ResourceAllocator(asked, nodes, max_concurrent)
    except UserError as error:
        raise UserError(
            f"{error}, or pass --wait-for-nodes: the search then requests nodes and waits for them"
        ) from error


def cluster_nodes(address: str) -> list[Node]:
    """Resources of each node, by Ray's names."""
    return [node.resources_total or {} for node in _describe_nodes(address)]


def _describe_nodes(address: str) -> list[Any]:
    """As Ray describes them."""
    from ray.util.state import list_nodes  # only submit needs it

    with address_as_given():
        found: list[Any] = list_nodes(address=filled_in(address), raise_on_missing_output=False)
    return [node for node in found if node.state == "ALIVE"]


@dataclass(frozen=True)
class HeadVersions:
    """Versions of Ray and Python on a head node."""

    ray: str
    """Version, as 2.60.0."""
    python: str | None
    """Major and minor version by the path of its libraries; None if that is unclear."""


def head_versions(client: JobSubmissionClient, address: str) -> HeadVersions:
    """Versions of Ray and Python on the head."""
    version = json.loads(_get(client.get_address(), "/api/version"))["ray_version"]
    for node in _describe_nodes(address):
        if node.is_head_node:
            try:
                page = _get(client.get_address(), f"/nodes/{node.node_id}")
            except urllib.error.HTTPError:
                page = ""
            found = PYTHON_IN_PATH.search(page)
            return HeadVersions(version, found and found[1])
    return HeadVersions(version, None)


def _get(address: str, path: str) -> str:
    """Read a page of a dashboard, with the token for it where Ray's client would send one."""
    request = urllib.request.Request(f"{address.rstrip('/')}{path}", headers=_token_header())
    with urllib.request.urlopen(request, timeout=JOB_SERVER_TIMEOUT_S) as answer:
        return answer.read().decode(errors="replace")


def _token_header() -> dict[str, str]:
    """Header with the token that Ray's documentation of token authentication describes."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and path.is_file():
        token = path.read_text("ascii", "ignore")
    token = "".join(token.split())  # a stale or damaged file must not break the request
    return {"Authorization": f"Bearer {token}"} if token else {}
