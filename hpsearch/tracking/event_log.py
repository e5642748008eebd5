"""Event log of a search: one JSON line per event, appended by the driver and never rewritten.

The live table, MLflow and the report are projections of this file. They read it at their own pace,
so a slow or absent reader never delays training, and each can be rebuilt from it. A trial that
resumes from a checkpoint may report the same number of patches twice; the first line counts,
because a repeated report holds the same values.
"""

import hashlib
import json
import os
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
"""``event`` is search, start, report, worker_failed, restarted_from_scratch, trial_paused,
trial_finished, extend, search_finished, step_finished or request; ``trial`` is the trial's id.

The first event of a log also holds the schema version."""

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


FLUSHED_EVENTS = frozenset(
    (
        "search",
        "start",
        "trial_paused",
        "trial_finished",
        "extend",
        "search_finished",
        "step_finished",
    )
)
"""Events after which the log is flushed to disk; reports come too often for that."""
TEXTS = (
    "event",
    "trial",
    "status",
    "reason",
    "kind",
    "direction",
    "traceback",
    "step",
    "action",
    "text",
)
COUNTS, NUMBERS = (
    ("number", "seen", "trials", "count"),
    ("time", "seen", "number", "objective", "seconds"),
)
GROUPS = ("config", "metrics", "params", "dataset", "tags", "constants", "test", "drawn", "point")
KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(NUMBERS, (int, float)),
    **dict.fromkeys(COUNTS, int),
    **dict.fromkeys(TEXTS, str),
    **dict.fromkeys(GROUPS, dict),
    "steps": list,
}
"""Types of the fields of an event; not every event has each field."""
LARGEST = 1e300


@dataclass(frozen=True)
class EventLog:
    """Append-only file of events."""

    path: Path

    def append(self, event: str, **fields: Any) -> None:
        """Append one event with the time at which it happened (seconds since 1970).

        The log is flushed to disk at each end of a trial, so that a power cut loses at most the
        reports of trials that ran, which their checkpoints repeat.

        Raises:
            OSError: if the disk is full; a partly written line is ignored by readers.
        """
        moment = _boot_time(self.path) + _monotonic_uptime()
        stamped = {"event": event, "time": moment}
        kept = {k: redacted(v) if isinstance(v, str) else v for k, v in fields.items()}
        file = self._open_to_append()
        try:
            size = os.fstat(file).st_size
            if not size:
                stamped[KEY] = SCHEMA_VERSION
            line = json.dumps({**stamped, **kept}, allow_nan=False)
            broken = size and os.pread(file, 1, size - 1) != b"\n"
            start = b"\n" if broken else b""  # the last writer was killed while it wrote a line
            rest = start + line.encode() + b"\n"
            # one call, since other processes may append too; a full disk writes only a part
            while rest:
                rest = rest[os.write(file, rest) :]
            if event in FLUSHED_EVENTS:
                os.fsync(file)
        finally:
            os.close(file)

    def _open_to_append(self) -> int:
        """Descriptor of the file, which is created if missing, as is its folder."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(self.path, flags, 0o666)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, flags, 0o666)

    def read(self, offset: int = 0, *, kind: str | None = None) -> tuple[list[Event], int]:
        """Read complete events from byte ``offset`` on, and the offset of the next read.

        Args:
            offset: in bytes.
            kind: ``event`` of those that are returned; None for all. Others are not parsed.

        Raises:
            NewerSchema: if a newer hpsearch began the ledger.
        """
        if not self.path.exists():
            return [], offset
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if kind is None:
            return self._known(whole), offset + len(whole)
        name = json.dumps(kind).encode()
        lines = whole.splitlines(keepends=True)
        first = lines[:1] if not offset else []  # it holds the schema version
        kept = first + [line for line in lines[len(first) :] if name in line]
        events = [event for event in self._known(b"".join(kept)) if event["event"] == kind]
        return events, offset + len(whole)

    def search_id(self) -> str:
        """Unique id of the search: a digest of the first event, which includes its time."""
        if not self.path.exists():
            return ""
        with self.path.open("rb") as file:
            return hashlib.sha256(file.readline()).hexdigest()[:16]

    def events(self) -> list[Event]:
        """Read all events so far."""
        return self.read()[0]

    def events_until(self, offset: int) -> list[Event]:
        """Read the events before byte ``offset``."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            return self._known(file.read(offset))

    def _known(self, data: bytes) -> list[Event]:
        """Parse events and check that this version can read them.

        Raises:
            NewerSchema: if a newer hpsearch began the ledger.
        """
        events = list(_parse_events(data, self.path))
        for event in events[:1]:
            refuse_newer(event, self.path)
        return events


@cache
def _boot_time(path: Path) -> float:
    """Time of day at uptime zero, from the clock when this process first wrote to the log.

    Events stay in order and durations stay correct when the clock is set during a search.
    """
    lines = path.read_bytes().splitlines()[-2:] if path.exists() else []
    before = [event["time"] for event in _parse_events(b"\n".join(lines), path)]
    return (
        max(time.time(), *before) - _monotonic_uptime()
        if before
        else time.time() - _monotonic_uptime()
    )


def _monotonic_uptime() -> float:
    """Seconds since the machine started, including sleep; the clock does not change it."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _parse_events(data: bytes, path: Path) -> Iterator[Event]:
    for line in data.splitlines():
        with reading(path, "event log", "restore it from a copy, or start a new search"):
            try:
                event = json.loads(line)
            except ValueError:
                continue  # an unfinished line
            _check(event)
            event = _present_names(event)
        yield event


def _check(event: Any) -> None:
    """Check types, trial ids and numbers of an event, which another program may have written."""
    if not isinstance(event, dict):
        raise TypeError("a line is not an event")
    for name, value in event.items():
        known = KINDS.get(name)
        if known and (not isinstance(value, known) or isinstance(value, bool)):
            raise TypeError(f"{name} of an event is {str(value)[:40]!r}")
    if "event" not in event or "time" not in event:
        raise TypeError("a line has no event or time")
    if not NAME.fullmatch(event.get("trial", "0")):
        raise ValueError(f"{event['trial'][:40]!r} is not a trial id")
    numbers = [event[name] for name in NUMBERS if name in event]
    if event["event"] == "report":
        numbers += event.get("metrics", {}).values()
    if not all(isinstance(x, (int, float)) and abs(x) < LARGEST for x in numbers):
        raise ValueError("a number is not finite, or too large")


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
