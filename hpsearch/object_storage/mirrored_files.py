"""Files of the folder that mirrors a home in an object store: which belong to it, and what changed.

What a machine alone needs is not mirrored: locks, drafts, the files of running attempts, Ray Tune's
snapshots (nothing is restored from them), and MLflow's database and artifacts, which
``hpsearch sync`` rebuilds.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LAST = "ledger.jsonl"
"""Event log: committed after everything that its events mention."""
APPENDED = (".jsonl", ".journal", ".log")
"""Ends of names of files that only grow; their new whole lines are committed."""
LOCAL = re.compile(
    r"\.mirror\.[^/]*(/.*)?|mlartifacts(/.*)?|mlflow\.db[^/]*|[^/]*\.lock"
    r"|searches/\.[^/]*(/.*)?|searches/[^/]+/(attempts|tune|asked|lock)(/.*)?"
)
"""Paths in a home that stay on this machine; those of drafts and removed searches among them."""
LOCAL_FILES = re.compile(r".*\.(part|probe|lock|db|db-wal|db-shm|db-journal|draft)")
"""Names of files that do."""
LARGE = re.compile(r"data/.*|artifacts/.*|searches/[^/]+/trials/.*")
"""Paths that a command which shows or steers searches does not need."""
CHECKPOINTS = re.compile(r"searches/[^/]+/trials/.*")
"""Paths of files that carry a checksum of their own, of which trials keep the one before."""
Piece = dict[str, Any]
"""Part of a file: ``size``, ``sha256``, and ``data`` (base64) if it lies in the commit."""
Stamp = tuple[int, int, int]
"""Size, time of the last change and inode of a file."""


def mirrored_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of the folder that belong to the home, with their path in it.

    Example:
        >>> import tempfile
        >>> home = Path(tempfile.mkdtemp())
        >>> for name in ("mlflow.db", "notes.txt", "draft.part"):
        ...     _ = (home / name).write_text("")
        >>> [name for name, path in mirrored_files(home)]
        ['notes.txt']
    """
    for root, folders, names in os.walk(folder):
        within = Path(root).relative_to(folder)
        folders[:] = [x for x in folders if not LOCAL.fullmatch((within / x).as_posix())]
        for name in names:
            path = (within / name).as_posix()
            if not LOCAL.fullmatch(path) and not LOCAL_FILES.fullmatch(name):
                yield path, Path(root, name)


def is_event_log(name: str) -> bool:
    """Return True for the path of an event log."""
    return name.rpartition("/")[2] == LAST


def stamp_of(path: Path) -> Stamp:
    """Stamp of a file, which differs after a change."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def holds(path: Path, pieces: Sequence[Piece]) -> bool:
    """Return True if a file consists of exactly these pieces."""
    size = sum(piece["size"] for piece in pieces)
    return path.stat().st_size == size and starts_with(path, pieces)


def starts_with(path: Path, pieces: Sequence[Piece]) -> bool:
    """Return True if the first bytes of a file are these pieces."""
    with path.open("rb") as file:
        return all(
            hashlib.sha256(file.read(piece["size"])).hexdigest() == piece["sha256"]
            for piece in pieces
        )


def ends_with(path: Path, pieces: Sequence[Piece], size: int) -> bool:
    """Return True if the last of the pieces ends at byte ``size`` of a file, or there is none."""
    if not pieces:
        return True
    with path.open("rb") as file:
        file.seek(size - pieces[-1]["size"])
        return hashlib.sha256(file.read(pieces[-1]["size"])).hexdigest() == pieces[-1]["sha256"]
