"""Workers that the system killed because memory ran out, as far as the machine itself knows.

Ray's memory monitor names the workers that it kills. The kernel kills without a name: to Ray such a
worker is one whose connection ended. But the kernel counts the processes that it killed in each
cgroup (the limit of a container or a batch job) and on the machine. And a daemon such as
systemd-oomd kills where memory is nearly used up. So a worker states the count as it starts and the
used share of memory every few seconds; after its death the count is read again on the same machine.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

HIGH_MEMORY_SHARE = 0.9
"""Used share of memory above which a worker that died without a reason was killed for memory."""
PROBE_TIMEOUT_S = 20.0
"""Seconds to wait for the count of a machine that has just run out of memory."""


@dataclass(frozen=True)
class MemoryState:
    """Memory of the machine of a worker, while it ran."""

    node_id: str
    oom_kills: int | None
    """Processes that the kernel had killed when the worker started; None if unknown."""
    used_share: float
    """Highest used share of the memory that the worker has seen."""


class MemoryWatch:
    """Sends the state of a worker's machine: at its start, and once memory is nearly used up.

    Args:
        send: called with the state.
    """

    def __init__(self, send: Callable[[MemoryState], object]) -> None:
        node_id = ray.get_runtime_context().get_node_id()
        self._send, self._state = send, MemoryState(node_id, count_oom_kills(), used_memory_share())
        send(self._state)

    def update(self) -> None:
        """Look at the memory now."""
        share = used_memory_share()
        if share >= HIGH_MEMORY_SHARE > self._state.used_share:
            self._state = replace(self._state, used_share=share)
            self._send(self._state)


def was_killed_for_memory(before: MemoryState | None) -> bool:
    """Return whether a worker that died was killed for lack of memory; False if unknown.

    Args:
        before: the last state that the worker stated; None if it stated none.
    """
    if before is None:
        return False
    if before.used_share >= HIGH_MEMORY_SHARE:
        return True
    now = _count_on_node(before.node_id)
    return now is not None and before.oom_kills is not None and now > before.oom_kills


def _count_on_node(node_id: str) -> int | None:
    """Count of another machine; None if it does not answer."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    probe: Any = ray.remote(count_oom_kills).options(
        num_cpus=0, scheduling_strategy=there, max_retries=0
    )
    try:
        return ray.get(probe.remote(), timeout=PROBE_TIMEOUT_S)
    except (RayError, ValueError):
        return None


def count_oom_kills(root: Path = Path("/")) -> int | None:
    """Processes that the kernel killed for lack of memory in this process's cgroup.

    Without a cgroup that counts, those of the whole machine; None where neither is known, as on
    other systems than Linux.

    Args:
        root: folder that stands for the root of the file system, in tests.
    """
    cgroup = _memory_cgroup(root)
    for path in (
        *([cgroup / "memory.events", cgroup / "memory.oom_control"] if cgroup else []),
        root / "proc" / "vmstat",
    ):
        count = _read_entries(path).get("oom_kill")
        if count is not None:
            return count
    return None


def used_memory_share(root: Path = Path("/")) -> float:
    """Used share of the memory of this process's cgroup, or of the machine if that is higher.

    Args:
        root: folder that stands for the root of the file system, in tests.
    """
    kib = _read_entries(root / "proc" / "meminfo")
    total, available = kib.get("MemTotal:", 0), kib.get("MemAvailable:", 0)
    machine = 1 - available / total if total else 0.0
    cgroup = _memory_cgroup(root)
    if cgroup is None:
        return machine
    limit = _read_number(cgroup / "memory.max", cgroup / "memory.limit_in_bytes")
    used = _read_number(cgroup / "memory.current", cgroup / "memory.usage_in_bytes")
    if not limit or used is None:
        return machine
    statistics = _read_entries(cgroup / "memory.stat")  # caches are freed before anything is killed
    cached = statistics.get("total_inactive_file", statistics.get("inactive_file", 0))
    return max(machine, (used - cached) / limit)


def _memory_cgroup(root: Path) -> Path | None:
    """Folder of the cgroup that limits this process's memory, of version 2 or 1; None if none."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    base = root / "sys" / "fs" / "cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return base / "memory" / path.lstrip("/")
    unified = [line.split(":", 2)[2] for line in lines if line.startswith("0::")]
    return base / unified[0].lstrip("/") if unified else None


def _read_entries(path: Path) -> dict[str, int]:
    """Lines of a name and a number; empty if the file cannot be read."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def _read_number(*paths: Path) -> int | None:
    """Number in the first file that there is; None for ``max``, or without a file."""
    for path in paths:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None
