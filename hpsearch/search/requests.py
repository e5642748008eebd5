"""Requests to a search, in its event log: stop a trial, try a point, pause, change concurrency.

Any process may append one at any time (an append is one write). The process that trains reads them
several times a second, and acts between two steps of its own; so a request is never lost, is in
force again after a resume, and stands in the log with the time at which it was made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import optuna
from optuna.trial import FrozenTrial

from hpsearch.config import TrialConfig
from hpsearch.object_storage.inbox import REQUEST_EVENT, forward_request
from hpsearch.search.trial_queue import (
    POINT_ATTR,
    REPEAT_ATTR,
    REQUEST_ATTR,
    PlannedTrial,
    started_trials,
)
from hpsearch.tracking.event_log import Event, EventLog

Action = Literal[
    "stop-trial", "try-point", "train-on", "pause", "continue", "concurrency", "stop", "note"
]
STOP_REASON = "stopped on request"
"""Reason of a pruned trial that a user stopped."""


class RequestedPoint(NamedTuple):
    """Point that a user wants to be tried."""

    number: int
    """Number of the request among all points, from 0."""
    params: Mapping[str, Any]
    """Parameter values by name; the sampler draws the missing ones."""
    parent: str | None = None
    """Id of the trial that is to be trained on, whose point this is; None for a new trial."""


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
        new, self._offset = self.event_log.read(self._offset, kind=REQUEST_EVENT)
        for event in new:
            self._apply(event)
        return bool(new)

    def _apply(self, event: Event) -> None:
        match event.get("action"):
            case "stop-trial":
                self.stopped_trials.add(event["trial"])
            case "try-point":
                self.points.append(RequestedPoint(len(self.points), event.get("point", {})))
            case "train-on":
                point = RequestedPoint(len(self.points), event["point"], event["trial"])
                self.points.append(point)
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
        """First point for a new trial that no trial of the study has; None if there is none."""
        return self._untried(study, [point for point in self.points if point.parent is None])

    def next_continuation(self, study: optuna.Study) -> PlannedTrial | None:
        """First trial that is to train another one on; None if all have started.

        It has the point and the repeat of its parent, so that it takes no place in the queue.
        """
        found = self._untried(study, [point for point in self.points if point.parent is not None])
        if found is None or found.parent is None:
            return None
        own = _trial_of(study, found.parent).user_attrs
        return PlannedTrial(
            own[POINT_ATTR], own[REPEAT_ATTR], found.params, found.number, found.parent
        )

    @staticmethod
    def _untried(study: optuna.Study, points: Sequence[RequestedPoint]) -> RequestedPoint | None:
        if not points:
            return None
        attributes = (trial.user_attrs for trial in study.get_trials(deepcopy=False))
        tried = {known[REQUEST_ATTR] for known in attributes if REQUEST_ATTR in known}
        return next((point for point in points if point.number not in tried), None)


def _trial_of(study: optuna.Study, trial: str) -> FrozenTrial:
    return started_trials(study.get_trials(deepcopy=False))[int(trial)]


def continued_config(study: optuna.Study, parent: str, budget: int) -> TrialConfig:
    """Configuration of a trial that trains another one on, whatever the space draws now.

    Args:
        study: study of the search.
        parent: id of the other trial in the event log.
        budget: patches of the new trial.
    """
    config = TrialConfig.model_validate(_trial_of(study, parent).user_attrs["config"])
    return config.model_copy(update={"patches": budget})


def append_request(event_log: EventLog, action: Action, **fields: Any) -> None:
    """Append a request to the event log of a search, which may be running.

    In a home in an object store that a process of another machine writes to, that one appends it.

    Args:
        event_log: of the search.
        action: what to do.
        fields: ``trial`` (its id), ``point`` (values by name), ``count`` or ``text``.

    Raises:
        UserError: if that home is open for reading and no process writes to it, or does not answer.
    """
    if not forward_request(event_log.path, {"action": action, **fields}):
        event_log.append(REQUEST_EVENT, action=action, **fields)
