"""Ray runtime: starting, joining and leaving a cluster, and its nodes."""

import gc
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpsearch.config.custom_import import missing_packages
from hpsearch.errors import UserError, list_names
from hpsearch.execution.local_session_patches import leave_private_session, private_session
from hpsearch.execution.placement import ResourceAllocator
from hpsearch.execution.preemption import draining_node_ids
from hpsearch.execution.shutdown import hangup_blocked
from hpsearch.host_limits import exempt_this_machine_from_proxies, raise_open_file_limit
from hpsearch.search.resources import Resources, requested_placements

POLL_INTERVAL_S = 1.0
"""Seconds between two looks."""
RAY_RECONNECT_TIMEOUT_ENV = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""Ray's setting: seconds without a head after which it ends a process; 60 if unset."""


@contextmanager
def monitor_head(on_lost: Callable[[], None]) -> Iterator[None]:
    """Call ``on_lost`` from another thread once the head has not answered for too long.

    That is half the time that Ray waits, so that there is time for a last word.
    """
    over, patience = threading.Event(), float(os.environ.get(RAY_RECONNECT_TIMEOUT_ENV, "60")) / 2
    address = ray.get_runtime_context().gcs_address

    def poll() -> None:
        answered_at = time.monotonic()
        while not over.wait(POLL_INTERVAL_S):
            if is_port_open(address):
                answered_at = time.monotonic()
            elif time.monotonic() - answered_at > patience:
                on_lost()
                return

    threading.Thread(target=poll, name="head", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def is_port_open(address: str, *, timeout: float = 2.0) -> bool:
    """True if a server listens at ``HOST:PORT``, within so many seconds."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except (OSError, OverflowError):  # the latter of a port that there cannot be
        return False
    return True


GC_WAIT_S, GC_TIMEOUT_S = 0.001, 10.0
"""Seconds between two attempts to collect while another thread collects, and of all attempts."""
LOCAL_ADDRESS = "local"
"""Address of a Ray of one's own, on this machine."""
AUTO_ADDRESS = "auto"
"""Address of RAY_ADDRESS, else of a head of this machine, else of that which ran last."""
START_TIMEOUT_WORDS = "timed out during startup"
"""Words of Ray's error if its processes have not started within 30 s, which cannot be changed."""
HEAD_CONNECT_TIMEOUT_S = 10.0
"""Seconds that the head of a cluster has to answer."""
RAY_ENV = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",  # nothing is ever read from what Tune writes down
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would end its trials without a word
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of a trial that was stopped while it raised
    "THP_MEM_ALLOC_ENABLE": "1",  # workers train in a thread; see tune_glibc_malloc
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a bad report ends its trial, not the search
}


def start_ray(*, address: str | None = None, cpus: int | None = None) -> str | None:
    """Join a cluster, or start Ray on this machine for this process alone.

    Returns:
        Address of the cluster that was joined now; None on this machine, or if Ray runs already.

    Raises:
        UserError: if there is no cluster at ``address``, it is a dashboard's, or Ray does not
            start.
    """
    if address is not None and address.startswith("http"):
        raise UserError(
            f"{address} is a dashboard, and a search joins the cluster itself: give HEAD:6379, or "
            "send the search there with `hpsearch submit`"
        )
    for name, value in RAY_ENV.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        return None
    logging.getLogger("ray.tune").setLevel(
        logging.CRITICAL
    )  # the event log has the reasons of failures
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    exempt_this_machine_from_proxies()  # also the requests of workers
    if address in (None, LOCAL_ADDRESS):
        raise_open_file_limit(cpus or os.cpu_count() or 1)
        with private_session() as temp, hangup_blocked():
            quiet["_temp_dir"] = temp
            with _ray_errors("Ray did not start on this machine"):
                ray.init(address=LOCAL_ADDRESS, num_cpus=cpus, include_dashboard=False, **quiet)
        return None
    leave_private_session()  # if another process has ended it
    heads = running_heads() if address == AUTO_ADDRESS else 0
    meant = (current_cluster() if address == AUTO_ADDRESS and not heads else None) or address
    is_open = bool(heads) or _check_reachable(meant)
    with _ray_errors(f"the Ray cluster at {meant} cannot be joined"):
        try:
            ray.init(address=meant, **quiet)
        except (ConnectionError, ValueError) as error:
            where = "a Ray head of this machine" if heads else meant
            raise (_refused_error(where) if is_open else _unreachable_error(meant)) from error
    return ray.get_runtime_context().gcs_address


@contextmanager
def _ray_errors(problem: str) -> Iterator[None]:
    """Turn errors of Ray's start, such as another version's, into one sentence.

    Raises:
        UserError: with the first lines of Ray's message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Ray documents none, and raises RuntimeError, OSError and others
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines)[:400] or type(error).__name__
        if START_TIMEOUT_WORDS in reason:
            raise UserError(
                f"{problem}: {reason}; the machine is busy, so try again when it is less so, or "
                "use fewer --cpus",
                code="ray-start-failed",
            ) from error
        raise UserError(
            f"{problem}: {reason}; correct that and retry, or look into Ray's logs",
            code="ray-start-failed",
        ) from error


def current_cluster() -> str | None:
    """Address in RAY_ADDRESS, else in the file of the latest ``ray start``; None if neither.

    The file stays when its head has ended.
    """
    roots = (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp")
    file = Path(next(root for root in roots if root)) / "ray" / "ray_current_cluster"
    try:
        return os.environ.get("RAY_ADDRESS") or file.read_text("utf-8").strip() or None
    except (OSError, ValueError):
        return None


def running_heads() -> int:
    """Number of Ray heads of this machine, also those of local searches."""
    heads = 0
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has just ended
            heads += Path(process.read_bytes().partition(b"\0")[0].decode()).name == "gcs_server"
    return heads


def _check_reachable(address: str) -> bool:
    """Return True if something listens there, False if that is not known.

    Ray itself would try for minutes.

    Raises:
        UserError: if nothing does.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return False  # auto without any cluster, or something that Ray refuses at once
    if not is_port_open(f"{host}:{port}", timeout=HEAD_CONNECT_TIMEOUT_S):
        raise _unreachable_error(address)
    return True


def _unreachable_error(address: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address}; start one, or give another with --address (`local` "
        "for this machine alone)"
    )


def _refused_error(address: str) -> UserError:
    return UserError(
        f"{address} answers, but does not let this process join its Ray cluster, most often for "
        "want of its token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, as "
        "on the head, or give another --address",
        code="cluster-refuses",
    )


def free_cycles() -> None:
    """Collect garbage completely; wait for a collection of another thread, if it does not last.

    ``gc.collect`` returns at once while another thread collects, which may be inside a destructor.
    """
    own, collected = threading.get_ident(), list[str]()
    deadline = time.monotonic() + GC_TIMEOUT_S

    def note(phase: str, info: object) -> None:
        if threading.get_ident() == own:
            collected.append(phase)

    gc.callbacks.append(note)
    try:
        while not collected and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0 if collected else GC_WAIT_S)
    finally:
        gc.callbacks.remove(note)


def stop_ray() -> None:
    """Give the machine back, or leave the cluster.

    While Ray shuts down, its threads run, and other threads of this process too. One that frees a
    reference to an object of Ray then calls what is gone, and Ray ends the whole process ("the core
    worker has already been shutdown"). So references in cycles are freed before, and none during.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        free_cycles()
        ray.shutdown()
    finally:
        if collects:
            gc.enable()
    leave_private_session()


def check_capacity_now(resources: Resources, max_concurrent: int | None) -> None:
    """Make sure that the cluster can hold a trial, and so many at once.

    Raises:
        UserError: naming what is missing.
    """
    ResourceAllocator(resources, node_resources(), max_concurrent)


def node_resources() -> list[dict[str, float]]:
    """Resources of each node of the cluster that is not being drained."""
    going = draining_node_ids()
    there = (n for n in ray.nodes() if n["Alive"] and n["NodeID"] not in going)
    return [node["Resources"] for node in there]


def check_packages(wanted: tuple[str, ...]) -> None:
    """Make sure that every node has the packages that the user's own objects need.

    Args:
        wanted: packages as for pip, ``"scipy>=1.11"``.

    Raises:
        UserError: naming the first node that lacks one.
    """
    if not wanted:
        return
    going = draining_node_ids()
    nodes = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] not in going]
    probes = [_on_node(missing_packages, node["NodeID"]).remote(wanted) for node in nodes]
    for node, probe in zip(nodes, probes, strict=True):
        try:
            missing = ray.get(probe, timeout=PROBE_TIMEOUT_S)
        except (RayError, TimeoutError):
            continue  # a node that goes away trains nothing; a trial there fails with the sentence
        if missing:
            raise UserError(
                f"node {node['NodeManagerAddress']} lacks {list_names(missing, limit=3)}, which an "
                "object of the search space needs; install that on every node and resume",
                code="missing-package",
            )


def _on_node(function: Callable[..., Any], node_id: str) -> Any:
    """Remote function that runs on one node and occupies nothing there."""
    return ray.remote(function).options(
        num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
    )


PROBE_TIMEOUT_S = 60.0
"""Seconds that a node has to look up its packages; a worker process must start first."""
SCALING_POLL_S = 5.0
"""Seconds between two looks."""


@contextmanager
def requested_nodes(
    asked: Resources, max_concurrent: int | None, report: Callable[[str], None]
) -> Iterator[None]:
    """Nodes for so many trials at once, while inside; later none is kept idle.

    Where no autoscaler listens, this waits until the nodes are started.

    Where trials may hold a GPU or a TPU, it is GPUs that are asked for.

    Args:
        asked: by each trial.
        max_concurrent: trials; None for one, and whatever else there is.
        report: called once, if there is something to wait for.
    """
    wish = requested_placements(asked, ())[0]
    request_resources(bundles=[wish.ray_bundle()] * (max_concurrent or 1))
    try:
        _wait_for_nodes(asked, max_concurrent, report)
        yield
    finally:
        request_resources(bundles=[])


def _wait_for_nodes(
    asked: Resources, max_concurrent: int | None, report: Callable[[str], None]
) -> None:
    reported = False
    while True:
        try:
            return check_capacity_now(asked, max_concurrent)
        except UserError as error:
            if not reported:
                report(f"waiting for nodes: {str(error).partition(';')[0]}")
                reported = True
        time.sleep(SCALING_POLL_S)
