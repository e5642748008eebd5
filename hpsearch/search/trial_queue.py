"""Which point comes next, and with which training seed.

The study alone decides: a search that goes on after its driver died needs nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

POINT, REPEAT, WARM = "point", "repeat", "warm_from"
"""User attributes of a trial in the study: which point of the search it is, and which repeat of
it; and which earlier search it comes from, if it is not of this one."""


@dataclass(frozen=True)
class Turn:
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
        return {POINT: self.point, REPEAT: self.repeat}


def begun(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Trials of this search itself that do not wait."""
    return [t for t in trials if t.state != TrialState.WAITING and WARM not in t.user_attrs]


@dataclass
class Places:
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
    begun: int = 0
    """Trials of this search that do not wait."""
    _noted: int = 0
    _taken: set[tuple[int, int]] = field(default_factory=set)
    _known: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _next: int = 0

    def note(self, trials: Sequence[FrozenTrial]) -> None:
        """Take note of what the study has now; what waits stands behind all that has begun."""
        while self._noted < len(trials) and trials[self._noted].state != TrialState.WAITING:
            trial = trials[self._noted]
            self._noted += 1
            if WARM not in trial.user_attrs:
                self.begun += 1
                self._note(trial.user_attrs, trial.params)

    def _note(self, attributes: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        if POINT in attributes:
            self._taken.add((attributes[POINT], attributes[REPEAT]))
            self._known[attributes[POINT]] = params

    def turn(self) -> Turn | None:
        """The first place that no trial has taken; None if the points are listed and all are."""
        while self._place() in self._taken:
            self._next += 1
        point, repeat = self._place()
        if point in self._known and not self.is_finite:
            return Turn(point, repeat, self._known[point])
        if point < len(self.planned) and repeat < self.seeds:
            return Turn(point, repeat, self.planned[point])
        return None if self.is_finite else Turn(point, repeat, {})

    def _place(self) -> tuple[int, int]:
        if self.is_finite:
            repeat, point = divmod(self._next, len(self.planned))
            return point, repeat
        return divmod(self._next, self.seeds)
