"""Queue of the trials to start: points and training seeds.

Its state is derived from the study alone, so a search resumes after the loss of its driver.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

# values of 0.1.0 are kept: studies hold them, and shared ones may be read by an older version
POINT_ATTR, REPEAT_ATTR, WARM_START_ATTR = "point", "repeat", "warm_from"
"""User attributes of a trial in the study: number of its point, repeat of the point, and the
earlier search that it comes from, if any."""
REQUEST_ATTR = "request"
"""User attribute of a trial whose point a user requested: number of the request."""
PARENT_ATTR = "parent"
"""User attribute of a trial that trains another one on: id of that trial in the event log."""
TRANSFER_ATTR = "transferred_rank"
"""User attribute of a trial of an earlier search on other patches, at another budget or width: its
rank there, 0 for the worst and 1 for the best."""
REPEATED_ATTR = "repeats_trial"
"""User attribute of a trial in the study that was not started, because its configuration and seed
were drawn before: number of that trial."""


@dataclass(frozen=True)
class PlannedTrial:
    """Trial to start next."""

    point: int
    """Number of the point, from 0 in the order of first use."""
    repeat: int
    """Repeat of the point; it is added to the training seed."""
    params: Mapping[str, Any]
    """Parameter values by name; the sampler draws the missing ones."""
    request: int | None = None
    """Number of the request for this point; None for one that was not requested."""
    parent: str | None = None
    """Id of the trial that this one trains on; None for a trial from scratch."""

    @property
    def attributes(self) -> dict[str, Any]:
        """User attributes of the trial in the study."""
        own = {POINT_ATTR: self.point, REPEAT_ATTR: self.repeat}
        requested = {REQUEST_ATTR: self.request, PARENT_ATTR: self.parent}
        return own | {name: value for name, value in requested.items() if value is not None}


def started_trials(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Started trials of this search, without those of a warm start and refused repeats.

    Their indices are the numbers of the trials in the event log.
    """
    return [
        trial
        for trial in trials
        if trial.state != TrialState.WAITING
        and not {WARM_START_ATTR, REPEATED_ATTR} & trial.user_attrs.keys()
    ]


@dataclass
class TrialQueue:
    """Queue of the trials that a search may start.

    It reads each trial once, so that its cost per trial does not grow with the search.

    Args:
        planned: points to start with; all points, if ``is_finite``.
        seeds: trials per point.
        is_finite: whether no point is drawn. All points are then tried once before any is
            repeated, so that a search that ends early has compared them all; points that are
            drawn are repeated at once.
    """

    planned: Sequence[Mapping[str, Any]]
    seeds: int
    is_finite: bool
    num_started: int = 0
    """Number of started trials of this search."""
    _num_observed: int = 0
    _assigned: set[tuple[int, int]] = field(default_factory=set)
    _refused: set[int] = field(default_factory=set)
    """Points whose configuration was trained as an earlier point."""
    _params_of_point: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _cursor: int = 0
    _unfinished: list[int] = field(default_factory=list)
    """Numbers in the study of the trials that had not ended at the last count."""
    _num_counted: int = 0

    def observe(self, trials: Sequence[FrozenTrial]) -> None:
        """Update the queue from the trials of the study; waiting ones come after started ones."""
        while (
            self._num_observed < len(trials)
            and trials[self._num_observed].state != TrialState.WAITING
        ):
            trial = trials[self._num_observed]
            self._num_observed += 1
            if REPEATED_ATTR in trial.user_attrs:
                self._refuse(trial.user_attrs)
            elif WARM_START_ATTR not in trial.user_attrs:
                self.num_started += 1
                self._assign(trial.user_attrs, trial.params)

    def _assign(self, attributes: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        if POINT_ATTR in attributes:
            self._assigned.add((attributes[POINT_ATTR], attributes[REPEAT_ATTR]))
            self._params_of_point[attributes[POINT_ATTR]] = params

    def _refuse(self, attributes: Mapping[str, Any]) -> None:
        if POINT_ATTR not in attributes:
            return
        if self.is_finite:
            self._assigned.add((attributes[POINT_ATTR], attributes[REPEAT_ATTR]))
        else:
            self._refused.add(attributes[POINT_ATTR])

    def count_finished(self, trials: Sequence[FrozenTrial]) -> int:
        """Number of trials in the study that have ended; ended ones are looked at once."""
        self._unfinished.extend(range(self._num_counted, len(trials)))
        self._num_counted = len(trials)
        self._unfinished = [n for n in self._unfinished if not trials[n].state.is_finished()]
        return len(trials) - len(self._unfinished)

    def next(self) -> PlannedTrial | None:
        """Next trial to start; None if the points are finite and all are used."""
        while self._slot() in self._assigned or self._slot()[0] in self._refused:
            self._cursor += 1
        point, repeat = self._slot()
        if point in self._params_of_point and not self.is_finite:
            return PlannedTrial(point, repeat, self._params_of_point[point])
        if point < len(self.planned) and repeat < self.seeds:
            return PlannedTrial(point, repeat, self.planned[point])
        return None if self.is_finite else PlannedTrial(point, repeat, {})

    def _slot(self) -> tuple[int, int]:
        if self.is_finite:
            repeat, point = divmod(self._cursor, len(self.planned))
            return point, repeat
        return divmod(self._cursor, self.seeds)


def drawn_point(trial: optuna.Trial) -> dict[str, Any]:
    """Point of a trial as the event log keeps it: parameters, distributions, and its number."""
    return {
        "params": trial.params,
        "distributions": {
            name: json.loads(distribution_to_json(distribution))
            for name, distribution in trial.distributions.items()
        },
        **{name: trial.user_attrs.get(name) for name in (POINT_ATTR, REPEAT_ATTR)},
        **{n: trial.user_attrs[n] for n in (REQUEST_ATTR, PARENT_ATTR) if n in trial.user_attrs},
    }


def format_trial_id(number: int) -> str:
    """Format the name of a trial in the event log and on disk."""
    return f"{number:03d}"
