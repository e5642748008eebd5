"""Requests to a search, in its event log: stop a trial, try a point, pause, change concurrency.

Any process may append one at any time (an append is one write). The process that trains reads them
several times a second, and acts between two steps of its own; so a request is never lost, is in
force again after a resume, and stands in the log with the time at which it was made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import optuna

from hpsearch.search.trial_queue import REQUEST_ATTR
from hpsearch.tracking.event_log import Event, EventLog

Action = Literal["stop-trial", "try-point", "pause", "continue", "concurrency", "stop", "note"]
REQUEST_EVENT = "request"
STOP_REASON = "stopped on request"
"""Reason of a pruned trial that a user stopped."""


class RequestedPoint(NamedTuple):
    """Point that a user wants to be tried."""

    number: int
    """Number of the request among all points, from 0."""
    params: Mapping[str, Any]
    """Parameter values by name; the sampler draws the missing ones."""


@dataclass
class SearchRequests:
    """Requests of a search so far; ``refresh`` reads those that were made since.

    Args:
        event_log: of the search.
    """

    event_log: EventLog
    paused: bool = False
    """True while no further trial is started."""
    max_concurrent_trials: int | None = None
    """Largest number of concurrent trials; None if none was requested."""
    stopped_trials: set[str] = field(default_factory=set)
    """Ids of trials to stop at their next report."""
    points: list[RequestedPoint] = field(default_factory=list)
    """Points to try, in the order of the requests, those that were tried included."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Notes by trial id; those of the whole search under the empty id."""
    stop_requested: bool = False
    """True if the running session is to save all trials and end."""
    _offset: int = 0

    def __post_init__(self) -> None:
        self.refresh()
        self.stop_requested = False  # it was meant for an earlier session

    def refresh(self) -> bool:
        """Read new requests.

        Returns:
            Whether there were any.
        """
        events, self._offset = self.event_log.read(self._offset)
        new = [event for event in events if event["event"] == REQUEST_EVENT]
        for event in new:
            self._apply(event)
        return bool(new)

    def _apply(self, event: Event) -> None:
        match event.get("action"):
            case "stop-trial":
                self.stopped_trials.add(event["trial"])
            case "try-point":
                self.points.append(RequestedPoint(len(self.points), event.get("point", {})))
            case "pause":
                self.paused = True
            case "continue":
                self.paused = False
            case "concurrency":
                self.max_concurrent_trials = event.get("count")
            case "stop":
                self.stop_requested = True
            case "note":
                self.notes.setdefault(event.get("trial", ""), []).append(event.get("text", ""))

    def untried_point(self, study: optuna.Study) -> RequestedPoint | None:
        """First point that no trial of the study has; None if there is none."""
        if not self.points:
            return None
        attributes = (trial.user_attrs for trial in study.get_trials(deepcopy=False))
        tried = {known[REQUEST_ATTR] for known in attributes if REQUEST_ATTR in known}
        return next((point for point in self.points if point.number not in tried), None)


def append_request(event_log: EventLog, action: Action, **fields: Any) -> None:
    """Append a request to the event log of a search, which may be running.

    Args:
        event_log: of the search.
        action: what to do.
        fields: ``trial`` (its id), ``point`` (values by name), ``count`` or ``text``.
    """
    event_log.append(REQUEST_EVENT, action=action, **fields)
