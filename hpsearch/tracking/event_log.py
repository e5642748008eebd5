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

from hpsearch.config.formatting import present_names
from hpsearch.redaction import redacted
from hpsearch.schema import KEY, SCHEMA_VERSION, refuse_newer
from hpsearch.tracking.mlflow_tags import PARENT_SEARCH_ID
from hpsearch.untrusted import NAME, reading

Event = dict[str, Any]
"""``event`` is search, start, report, worker_failed, restarted_from_scratch, trial_finished, extend
or search_finished; ``trial`` is the trial's id.

The first of a ledger also names the version of its form."""

FORMER_EVENTS = {
    "crash": "worker_failed",
    "anew": "restarted_from_scratch",
    "end": "trial_finished",
    "finish": "search_finished",
}
FORMER_KINDS = {"yardstick": "baseline"}
FORMER_FIELDS = {"place": "allocation"}
FORMER_TAGS = {"hpsearch.beneath": PARENT_SEARCH_ID}
"""Names in event logs of 0.1.0, and the present ones; here alone they are translated."""


TEXTS = ("event", "trial", "status", "reason", "kind", "direction", "traceback")
COUNTS, NUMBERS = ("number", "seen", "trials"), ("time", "seen", "number", "objective", "seconds")
GROUPS = ("config", "metrics", "params", "dataset", "tags", "constants", "test")
KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(NUMBERS, (int, float)),
    **dict.fromkeys(COUNTS, int),
    **dict.fromkeys(TEXTS, str),
    **dict.fromkeys(GROUPS, dict),
}
"""Types of an event's fields, where it has them."""
LARGEST = 1e300


@dataclass(frozen=True)
class EventLog:
    """An append-only file of events."""

    path: Path

    def append(self, event: str, **fields: Any) -> None:
        """Write one event with the time it happened (seconds since 1970).

        Raises:
            OSError: if the disk is full; what has been written by then counts for nothing.
        """
        moment = _boot_time(self.path) + _monotonic_uptime()
        said = {"event": event, "time": moment}
        kept = {k: redacted(v) if isinstance(v, str) else v for k, v in fields.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            if not file.tell():
                said[KEY] = SCHEMA_VERSION
            line = json.dumps({**said, **kept}, allow_nan=False)
            broken = file.tell() and not _ends_with_newline(self.path)
            start = b"\n" if broken else b""  # the last writer died in the middle of a line
            rest = start + line.encode() + b"\n"
            while rest:  # in one piece, for others may write too; a disk that fills up takes a part
                rest = rest[file.write(rest) :]

    def read(self, offset: int = 0) -> tuple[list[Event], int]:
        """Whole events from byte ``offset`` on, and the offset to go on from.

        Raises:
            NewerSchema: if a newer hpsearch began the ledger.
        """
        if not self.path.exists():
            return [], offset
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        return self._known(whole), offset + len(whole)

    def search_id(self) -> str:
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
            return self._known(file.read(offset))

    def _known(self, data: bytes) -> list[Event]:
        """Events, which this version knows how to read.

        Raises:
            NewerSchema: if a newer hpsearch began the ledger.
        """
        events = list(_parse_events(data, self.path))
        for event in events[:1]:
            refuse_newer(event, self.path)
        return events


@cache
def _boot_time(path: Path) -> float:
    """The time of day at uptime zero, by the clock when this process first wrote to a ledger.

    The clock may be set while a search runs; its events stay in order, and last as long as they do.
    """
    lines = path.read_bytes().splitlines()[-2:] if path.exists() else []
    before = [event["time"] for event in _parse_events(b"\n".join(lines), path)]
    return (
        max(time.time(), *before) - _monotonic_uptime()
        if before
        else time.time() - _monotonic_uptime()
    )


def _monotonic_uptime() -> float:
    """Seconds that the machine has been up, asleep or not; nobody can set it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"


def _parse_events(data: bytes, path: Path) -> Iterator[Event]:
    for line in data.splitlines():
        with reading(path, "event log", "restore it from a copy, or begin a new search"):
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a line that its writer did not finish
            _check(event)
            event = _present_names(event)
        yield event


def _check(event: Any) -> None:
    """Refuse what nothing here has written: types, names of trials, numbers that are none."""
    if not isinstance(event, dict):
        raise TypeError("a line of it is no event")
    for name, value in event.items():
        known = KINDS.get(name)
        if known and (not isinstance(value, known) or isinstance(value, bool)):
            raise TypeError(f"{name} of an event is {str(value)[:40]!r}")
    if "event" not in event or "time" not in event:
        raise TypeError("a line of it has no event or time")
    if not NAME.fullmatch(event.get("trial", "0")):
        raise ValueError(f"{event['trial'][:40]!r} names no trial")
    numbers = [event[name] for name in NUMBERS if name in event]
    if event["event"] == "report":
        numbers += event.get("metrics", {}).values()
    if not all(isinstance(x, (int, float)) and abs(x) < LARGEST for x in numbers):
        raise ValueError("a number in it is none, or too large")


def _present_names(event: Event) -> Event:
    """An event of any version under the names of this one."""
    found = {FORMER_FIELDS.get(name, name): value for name, value in event.items()}
    found["event"] = FORMER_EVENTS.get(event["event"], event["event"])
    if "kind" in found:
        found["kind"] = FORMER_KINDS.get(found["kind"], found["kind"])
    if "tags" in found:
        found["tags"] = {FORMER_TAGS.get(tag, tag): value for tag, value in found["tags"].items()}
    if "constants" in found:
        found["constants"] = present_names(found["constants"])
    return found
