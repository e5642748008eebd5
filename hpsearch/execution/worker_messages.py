"""Messages between worker and driver: the trial's configuration, and a tagged union of reports.

Ray Tune carries results as dicts, flattens nested ones, and adds entries of its own. So a message
travels as one JSON entry, which arrives in every hook of Tune as it was sent. It sends a trial's
configuration back with each report, flattens it three times, and keeps statistics of each number
in it; so what is nested there travels as JSON as well.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

from hpsearch.search.objective import Objective
from hpsearch.search.outcome import COLLAPSE_STATUSES, final_status, to_result
from hpsearch.search.search import Search
from hpsearch.training.loop import Report

MESSAGE_KEY = "worker_message"
"""Entry of a Tune result that holds a message."""
NESTED_PARTS = ("trial", "place")
"""Entries of a trial's configuration in Tune that travel as JSON."""


def encode_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Encode the configuration of an attempt for Tune."""
    return {k: json.dumps(v) if k in NESTED_PARTS else v for k, v in config.items()}


def decode_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Decode the configuration of an attempt, as Tune carries it."""
    return {k: json.loads(v) if k in NESTED_PARTS else v for k, v in config.items()}


@dataclass(frozen=True)
class _Message:
    tag: ClassVar[str]

    def to_dict(self) -> dict[str, str]:
        """Encode as a result for ``tune.report``."""
        return {MESSAGE_KEY: json.dumps({"tag": self.tag, **asdict(self)})}


@dataclass(frozen=True)
class Reported(_Message):
    """A report of a trial, with the objective after the check for collapse."""

    tag: ClassVar[str] = "reported"
    seen: int
    """Number of patches seen."""
    objective: float
    """Value of the first objective; finite, and the worst one after a collapse."""
    status: str = "running"
    """``running``, or the status with which training ended."""
    collapsed: bool = False
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_report(cls, report: Report, objective: Objective) -> "Reported":
        """Evaluate the objective of a report of the training loop."""
        return cls(**to_result(report, objective))


@dataclass(frozen=True)
class Restarted(_Message):
    """Training starts from scratch, because the checkpoint is damaged."""

    tag: ClassVar[str] = "restarted"
    reason: str


@dataclass(frozen=True)
class Failed(_Message):
    """An error that another attempt would raise again."""

    tag: ClassVar[str] = "failed"
    reason: str
    out_of_memory: bool = False
    """True if memory of the accelerator or the machine ran out in the trial itself."""


@dataclass(frozen=True)
class DiskFull(_Message):
    """A full disk, on which the next attempt would fail as well."""

    tag: ClassVar[str] = "disk-full"
    disk: str
    """Description of the disk."""


WorkerMessage = Reported | Restarted | Failed | DiskFull
_BY_TAG: dict[str, type[WorkerMessage]] = {
    cls.tag: cls for cls in (Reported, Restarted, Failed, DiskFull)
}


def from_dict(result: Mapping[str, Any] | None) -> WorkerMessage | None:
    """Decode the message in a Tune result, nested or flattened; None if it holds none.

    Raises:
        KeyError: if the message has an unknown tag.
    """
    if not result or MESSAGE_KEY not in result:
        return None
    return _decode(result[MESSAGE_KEY])


@lru_cache(maxsize=8)
def _decode(text: str) -> WorkerMessage:
    """Decode a message once for all hooks that get it one after the other."""
    fields = json.loads(text)
    return _BY_TAG[fields.pop("tag")](**fields)


def message_outcome(message: WorkerMessage | None) -> tuple[str, str]:
    """Status and reason of a trial that ended without an error after this message."""
    match message:
        case Reported():
            return final_status(vars(message))
        case Failed():
            return "failed", message.reason
        case _:
            return "failed", "no report came"


def objective_values(message: WorkerMessage | None, search: Search) -> list[float] | None:
    """One value for each objective; None if the message lacks one."""
    if not isinstance(message, Reported):
        return None
    metrics, collapsed = message.metrics, message.collapsed or message.status in COLLAPSE_STATUSES
    if not collapsed and any(also.metric not in metrics for also in search.extra_objectives):
        return None
    further = (also.value(metrics, collapsed=collapsed) for also in search.extra_objectives)
    return [message.objective, *further]
