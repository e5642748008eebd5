"""Lease of a home in an object store: the process that writes there, and the searches it runs.

A lease stands for the locks of files, which other machines do not see. Its holder names in it the
lock files that are held below the folder, so that another machine knows which searches run.
"""

import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpsearch.atomic_files import is_alive, is_locked
from hpsearch.errors import UserError
from hpsearch.locations import MIRROR_FILE
from hpsearch.object_storage.object_store import ObjectStore

LEASE_S = 60.0
"""Time after the last renewal at which a lease ends."""
DRIVER_LOCK = ".mirror.lock"
"""File that a process holds locked while it writes to the folder of a home in an object store."""
LOCK_FILES = "*/*/lock"
"""Lock files of a home that are named in its lease: those of its searches."""
Holder = dict[str, Any]
"""Process that holds a lease: ``id``, ``host``, ``machine``, ``pid``, ``number`` of the commit that
took it, and ``expires`` (seconds since 1970, by the holder's clock); a reader adds ``locks``."""


class LeaseLostError(UserError):
    """Another driver has taken over the home."""

    default_code = "lease-lost"


def machine_id() -> str:
    """Digest that differs between machines, restarts of one, and its containers.

    A host name is not enough: containers on the network of their host share it, and see no process
    of each other.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):  # no Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def new_holder(driver: str, number: int) -> Holder:
    """This process as the holder of a lease that begins now.

    Args:
        driver: its unique id.
        number: of the commit by which it takes the lease.
    """
    return {
        "id": driver,
        "host": socket.gethostname(),
        "machine": machine_id(),
        "pid": os.getpid(),
        "number": number,
        "expires": time.time() + LEASE_S,
    }


def is_dead(holder: Mapping[str, Any]) -> bool:
    """Return True if the holder was a process of this machine that has ended."""
    return holder.get("machine") == machine_id() and not is_alive(holder["pid"])


def in_use(address: str, holder: Mapping[str, Any], seconds: float) -> UserError:
    """Error of a home that another process writes to.

    Args:
        address: of the home.
        holder: the process.
        seconds: time that is left of its lease.
    """
    return UserError(
        f"{address} is in use by process {holder['pid']} on {holder['host']}; stop it there, or, "
        f"if it has died, repeat the command in {seconds:.0f} s",
        code="home-in-use",
    )


def commit_name(number: int) -> str:
    """Name of the object of a commit."""
    return f"commits/{number:012d}.json"


def lease_name(holder: Mapping[str, Any]) -> str:
    """Name of the object that is written when a lease is renewed."""
    return f"leases/{holder['number']:012d}"


def seconds_left(store: ObjectStore, holder: Mapping[str, Any]) -> float:
    """Time that is left of a lease; 0 or less if it has ended.

    Its age is measured by the clock of the server, which wrote it, and writes a probe now, so the
    clocks of two machines may differ.
    """
    written = store.names("leases").get(lease_name(holder))
    if written is None:
        written = store.names("commits").get(commit_name(holder["number"]), 0.0)
    probe = f"probes/{uuid.uuid4().hex}"
    store.put(probe, b"")
    now = store.names("probes").get(probe, written)
    store.delete([probe])
    return written + LEASE_S - now


def held_locks(folder: Path) -> list[str]:
    """Lock files below the folder of a home that a process of this machine holds."""
    paths = sorted(folder.glob(LOCK_FILES))
    return [path.relative_to(folder).as_posix() for path in paths if is_locked(path)]


def is_mirror(home: Path) -> bool:
    """Return True for a folder that mirrors a home in an object store."""
    return (home / MIRROR_FILE).is_file()


def holder_elsewhere(home: Path) -> Holder | None:
    """Process of another machine or folder that holds the lease of a mirrored home.

    None for a home that is no mirror, whose lease has ended, or to which a process of this machine
    writes. By the clock of this machine, as of the last time that the folder was updated.
    """
    holder = _record(home).get("holder")
    if not holder or is_locked(home / DRIVER_LOCK):
        return None
    return None if holder["expires"] < time.time() or is_dead(holder) else holder


def is_locked_elsewhere(home: Path, lock: Path) -> bool:
    """Return True if a process of another machine holds a lock file of a mirrored home."""
    holder = holder_elsewhere(home) if is_mirror(home) else None
    locks: Sequence[str] = () if holder is None else holder.get("locks", ())
    return lock.relative_to(home).as_posix() in locks


def require_driver(home: Path) -> None:
    """Check that what is written to a home reaches the object store, if it is a mirror of one.

    Raises:
        UserError: if the folder is open for reading alone.
    """
    if not is_mirror(home) or is_locked(home / DRIVER_LOCK):
        return
    address, holder = _record(home).get("address", str(home)), holder_elsewhere(home)
    if holder is not None:
        raise in_use(address, holder, holder["expires"] - time.time())
    raise UserError(
        f"{home} mirrors {address}, and what is written there would not reach it; give --home "
        f"{address}, or open it with hpsearch.object_storage.open_home",
        code="read-only-home",
    )


def _record(home: Path) -> dict[str, Any]:
    try:
        found = json.loads((home / MIRROR_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
