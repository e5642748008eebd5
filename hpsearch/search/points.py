"""Which point comes next, and with which training seed.

The study alone decides: a search that goes on after its driver died needs nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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


def next_turn(
    trials: Iterable[FrozenTrial], *, planned: Sequence[Mapping[str, Any]], seeds: int, listed: bool
) -> Turn | None:
    """The first place that no trial has taken; None if the points are listed and all are taken.

    Args:
        trials: the study's.
        planned: the points to begin with; all there are, if ``listed``.
        seeds: trials of each point.
        listed: whether nothing is drawn. All points are then tried once before any is tried again,
            so that a search that is cut short has compared them all; points that are drawn are
            repeated at once.
    """
    own = begun(trials)
    taken = {(t.user_attrs.get(POINT), t.user_attrs.get(REPEAT)) for t in own}
    known = {t.user_attrs[POINT]: t.params for t in own if POINT in t.user_attrs}
    for point, repeat in _places(len(planned) if listed else len(known), seeds, listed=listed):
        if (point, repeat) not in taken:
            return Turn(point, repeat, planned[point] if listed else known[point])
    if listed:
        return None
    return Turn(len(known), 0, planned[len(known)] if len(known) < len(planned) else {})


def _places(points: int, seeds: int, *, listed: bool) -> Iterator[tuple[int, int]]:
    if listed:
        yield from ((point, repeat) for repeat in range(seeds) for point in range(points))
    else:
        yield from ((point, repeat) for point in range(points) for repeat in range(seeds))
