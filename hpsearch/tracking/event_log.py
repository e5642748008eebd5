"""The search's own record: one JSON line an event, appended by the driver and never rewritten.

Everything that people look at (the live table, MLflow, the report) follows this file at its own
pace, so a slow or absent reader never holds up training, and all of it can be made again from here.
A trial that goes on from a checkpoint may report the same number of patches twice; the first line
counts, because a repeated report holds the same numbers.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Event = dict[str, Any]
"""``event`` is search, start, report, crash, anew, end or finish; ``trial`` is its id."""


@dataclass(frozen=True)
class Ledger:
    """An append-only file of events."""

    path: Path

    def append(self, event: str, **fields: Any) -> None:
        """Write one event with the time it happened (seconds since 1970).

        Raises:
            OSError: if the disk is full; what has been written by then counts for nothing.
        """
        moment = _since_1970(self.path) + _uptime()
        line = json.dumps({"event": event, "time": moment, **fields}, allow_nan=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            broken = file.tell() and not _ends_with_newline(self.path)
            start = b"\n" if broken else b""  # the last writer died in the middle of a line
            rest = start + line.encode() + b"\n"
            while rest:  # in one piece, for others may write too; a disk that fills up takes a part
                rest = rest[file.write(rest) :]

    def read(self, offset: int = 0) -> tuple[list[Event], int]:
        """Whole events from byte ``offset`` on, and the offset to go on from."""
        if not self.path.exists():
            return [], offset
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        return list(_parse(whole)), offset + len(whole)

    def identity(self) -> str:
        """What tells this search from any other: a digest of the first event, with its time."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            return hashlib.sha256(file.readline()).hexdigest()[:16]

    def events(self) -> list[Event]:
        """Everything so far."""
        return self.read()[0]

    def events_until(self, offset: int) -> list[Event]:
        """Events before byte ``offset``."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            return list(_parse(file.read(offset)))


@cache
def _since_1970(path: Path) -> float:
    """The time of day at uptime zero, by the clock when this process first wrote to a ledger.

    The clock may be set while a search runs; its events stay in order, and last as long as they do.
    """
    lines = path.read_bytes().splitlines()[-2:] if path.exists() else []
    before = [event["time"] for event in _parse(b"\n".join(lines))]
    return max(time.time(), *before) - _uptime() if before else time.time() - _uptime()


def _uptime() -> float:
    """Seconds that the machine has been up, asleep or not; nobody can set it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


def _parse(data: bytes) -> Iterator[Event]:
    for line in data.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # a line that its writer did not finish
