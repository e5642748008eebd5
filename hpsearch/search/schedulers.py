"""Who is stopped early: rules over the reports of all trials, in the order in which they came.

A rule is a function of the ledger. When a search goes on, the rule reads the ledger again and
stands where it stood, with every decision that it took. Ray's own schedulers forget theirs, draw
their brackets anew, or pause trials until a whole bracket has come.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from hpsearch.search.median import Median

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
