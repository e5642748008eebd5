"""Which of Ray's workers run on this machine, by the list of its processes."""

import os
from dataclasses import dataclass
from pathlib import Path


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
