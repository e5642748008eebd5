"""Which point comes next, and with which training seed.

The study alone decides: a search that goes on after its driver died needs nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

POINT_ATTR, REPEAT_ATTR, WARM_START_ATTR = "point", "repeat", "warm_from"
"""User attributes of a trial in the study: which point of the search it is, and which repeat of
it; and which earlier search it comes from, if it is not of this one."""


@dataclass(frozen=True)
class PlannedTrial:
    """What to try next."""

    point: int
    """Points of a search are counted from 0 in the order in which they are first tried."""
    repeat: int
    """Added to the training seed."""
    params: Mapping[str, Any]
    """Values by name; what is missing is the sampler's to draw."""

    @property
    def attributes(self) -> dict[str, Any]:
        """What the trial in the study remembers."""
        return {POINT_ATTR: self.point, REPEAT_ATTR: self.repeat}


def started_trials(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials of this search itself that do not wait."""
    return [
        t for t in trials if t.state != TrialState.WAITING and WARM_START_ATTR not in t.user_attrs
    ]


@dataclass
class TrialQueue:
    """Which trials a search has room for, and which of them are taken.

    It reads each trial once, so that a search of thousands costs no more a trial than a short one.

    Args:
        planned: the points to begin with; all there are, if ``is_finite``.
        seeds: trials of each point.
        is_finite: whether nothing is drawn. All points are then tried once before any is tried
            again, so that a search that is cut short has compared them all; points that are drawn
            are repeated at once.
    """

    planned: Sequence[Mapping[str, Any]]
    seeds: int
    is_finite: bool
    num_started: int = 0
    """Trials of this search that do not wait."""
    _num_observed: int = 0
    _assigned: set[tuple[int, int]] = field(default_factory=set)
    _params_of_point: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _cursor: int = 0

    def observe(self, trials: Sequence[FrozenTrial]) -> None:
        """Take note of what the study has now; what waits stands behind all that has begun."""
        while (
            self._num_observed < len(trials)
            and trials[self._num_observed].state != TrialState.WAITING
        ):
            trial = trials[self._num_observed]
            self._num_observed += 1
            if WARM_START_ATTR not in trial.user_attrs:
                self.num_started += 1
                self._assign(trial.user_attrs, trial.params)

    def _assign(self, attributes: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        if POINT_ATTR in attributes:
            self._assigned.add((attributes[POINT_ATTR], attributes[REPEAT_ATTR]))
            self._params_of_point[attributes[POINT_ATTR]] = params

    def next(self) -> PlannedTrial | None:
        """The first place that no trial has taken; None if the points are listed and all are."""
        while self._slot() in self._assigned:
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
