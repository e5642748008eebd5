"""Pruners: ASHA, Hyperband and median stopping over the event log."""

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, Protocol

import numpy as np

PEERS = 3
"""Trials that it wants to have seen at the same patches before it stops one."""


@dataclass
class _Course:
    """What one trial has said so far."""

    seen: list[int] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    """Of all values up to each report."""
    total: float = 0.0
    best: float = float("-inf")

    def add(self, seen: int, value: float) -> None:
        """One more report."""
        self.total += value
        self.seen.append(seen)
        self.means.append(self.total / len(self.seen))
        self.best = max(self.best, value)

    def mean_at(self, seen: int) -> float | None:
        """Mean of the values up to there; None if it said nothing by then."""
        said = bisect_right(self.seen, seen)
        return self.means[said - 1] if said else None


@dataclass
class Median:
    """Stops a trial whose best value so far is below the median of the others' means so far.

    For every number of patches at which a trial has reported, the means of those that have come as
    far are kept in order. Trials report at the same few numbers, so a report is one insertion.
    Source: Golovin et al., Google Vizier, KDD 2017, section 3.2.1.
    """

    grace: float
    _courses: dict[int, _Course] = field(default_factory=dict)
    _levels: list[int] = field(default_factory=list)
    """Patches seen, ascending, from ``grace`` on."""
    _means: dict[int, list[float]] = field(default_factory=dict)
    """At each level, ascending."""

    def stops(self, number: int, seen: int, value: float) -> bool:
        """From ``grace`` patches on, against those that have come as far."""
        peers = self._peers(seen) if seen >= self.grace else []
        middle = median(peers) if len(peers) >= PEERS else None
        course = self._courses.setdefault(number, _Course())
        before = course.seen[-1] if course.seen else 0
        course.add(seen, value)
        self._enter(course, after=before, until=seen)
        return middle is not None and course.best < middle

    def _peers(self, seen: int) -> list[float]:
        """Means there; the trial that reports has not come as far yet."""
        if seen not in self._means:
            insort(self._levels, seen)
            far = (c for c in self._courses.values() if c.seen[-1] >= seen)
            self._means[seen] = sorted(m for c in far if (m := c.mean_at(seen)) is not None)
        return self._means[seen]

    def _enter(self, course: _Course, *, after: int, until: int) -> None:
        first, last = bisect_right(self._levels, after), bisect_right(self._levels, until)
        for level in self._levels[first:last]:
            mean = course.mean_at(level)
            if mean is not None:
                insort(self._means[level], mean)


SchedulerName = Literal["asha", "hyperband", "median", "none"]
BRACKETS = 3
"""Of Hyperband, if the budget has that many rungs."""
GOLDEN = (5**0.5 - 1) / 2


class Rule(Protocol):
    """Decides at a report whether its trial goes on; larger values are better."""

    def stops(self, number: int, seen: int, value: float) -> bool:
        """Take note of a report of the trial ``number``; whether it should stop there."""
        ...


@dataclass
class Halving:
    """Asynchronous successive halving: at each rung the best 1/reduction of those so far go on.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020; a rung's
    cut is the percentile of the values before, as in Ray's ``AsyncHyperBandScheduler``.
    """

    rungs: tuple[float, ...]
    """Patches seen, ascending."""
    reduction: float
    recorded: dict[float, dict[int, float]] = field(default_factory=dict)

    def stops(self, number: int, seen: int, value: float) -> bool:
        """At the highest rung that the trial has reached, if it is new there."""
        reached = [rung for rung in self.rungs if rung <= seen]
        if not reached or number in self.recorded.get(reached[-1], {}):
            return False
        others = self.recorded.setdefault(reached[-1], {})
        cut = (
            np.percentile(list(others.values()), 100 * (1 - 1 / self.reduction)) if others else None
        )
        others[number] = value
        return cut is not None and value < cut


@dataclass
class Hyperband:
    """Brackets of successive halving, each of which begins to stop one rung later.

    Which bracket a trial is in follows from its number, in proportion to Hyperband's bracket sizes.
    Source: Li et al., Hyperband, JMLR 2018.
    """

    brackets: tuple[Halving, ...]
    reduction: float

    def stops(self, number: int, seen: int, value: float) -> bool:
        """As its bracket does."""
        return self.brackets[self.bracket(number)].stops(number, seen, value)

    def bracket(self, number: int) -> int:
        """Which bracket a trial is in: multiples of the golden ratio fill the shares evenly."""
        count = len(self.brackets)
        sizes = [self.reduction ** (count - 1 - k) / (count - k) for k in range(count)]
        return int(np.searchsorted(np.cumsum(sizes) / sum(sizes), number * GOLDEN % 1))


def rungs(*, grace: float, budget: float, reduction: float) -> tuple[float, ...]:
    """Patches seen at which trials are compared: from ``grace`` on, and below ``budget``."""
    found = []
    while grace < budget:
        found.append(grace)
        grace *= reduction
    return tuple(found)


def build_rule(
    name: SchedulerName, *, grace: float, budget: float, reduction: float
) -> Rule | None:
    """The rule by name; None stops nobody."""
    at = rungs(grace=grace, budget=budget, reduction=reduction)
    match name:
        case "asha":
            return Halving(at, reduction)
        case "hyperband":
            count = min(BRACKETS, len(at))
            return Hyperband(tuple(Halving(at[k:], reduction) for k in range(count)), reduction)
        case "median":
            return Median(grace)
        case "none":
            return None


class Judge:
    """A rule with a memory of what it has decided, also in earlier sessions of the search."""

    def __init__(
        self, rule: Rule | None, *, maximize: bool, events: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        self._rule, self._sign = rule, 1 if maximize else -1
        self._latest: dict[int, int] = {}
        self._stopped: set[int] = set()
        if rule is not None:
            self._read(events)

    def stops(self, number: int, *, seen: int, value: float) -> bool:
        """Whether the trial ``number`` stops; a report that is told again is decided as before."""
        if self._rule is not None and seen > self._latest.get(number, -1):
            self._latest[number] = seen
            if self._rule.stops(number, seen, self._sign * value):
                self._stopped.add(number)
        return number in self._stopped

    def _read(self, events: Iterable[Mapping[str, Any]]) -> None:
        numbers: dict[str, int] = {}
        for event in events:
            match event["event"]:
                case "start" if event.get("kind", "trial") == "trial":
                    numbers[event["trial"]] = event["number"]
                case "report" if event["trial"] in numbers:
                    number = numbers[event["trial"]]
                    self.stops(number, seen=event["seen"], value=event["objective"])
