"""Median stopping, at a price that hardly grows with the number of trials."""

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from statistics import median

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
