"""What a configuration is worth: the mean over its training seeds, for the best of them is luck."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple

from hpsearch.config.flat import differences
from hpsearch.reporting.tables import ORDER, Direction, objective, outcome, trials_of
from hpsearch.reporting.text import MISSING, Table
from hpsearch.tracking.runs import Run, repeats

COUNTED = ("completed", "collapsed", "diverged")
"""Who ended by itself; that of a collapsed trial is the worst objective there is."""


class Configuration(NamedTuple):
    """Trials that differ in their training seed alone."""

    place: int
    """From 1, by mean."""
    runs: list[Run]
    values: list[float]
    """Objectives of the trials that ended by themselves."""
    differs: str
    """The configuration in words, without what all share."""

    @property
    def mean(self) -> float | None:
        """None if no trial ended by itself."""
        return mean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the sample; None of fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else None


def configurations(runs: Sequence[Run], *, direction: Direction) -> list[Configuration]:
    """All of them by their mean; none if each was trained once."""
    groups = repeats(trials_of(runs))
    if all(len(group) == 1 for group in groups):
        return []
    words = differences([group[0].config.model_copy(update={"seed": 0}) for group in groups])
    found = [
        Configuration(0, group, _values(group), differs)
        for group, differs in zip(groups, words, strict=True)
    ]
    sign = -1 if direction == "maximize" else 1
    found.sort(key=lambda c: (c.mean is None, sign * (c.mean or 0.0), c.runs[0].number))
    return [one._replace(place=place) for place, one in enumerate(found, 1)]


def configurations_table(found: Sequence[Configuration]) -> Table:
    """Place, mean ± standard deviation over so many trials, how they ended, what differs."""
    header = ("#", "trials", "mean", "± sd", "n", "ended", "settings")
    rows = tuple(
        (
            str(one.place),
            " ".join(run.label for run in one.runs),
            MISSING if one.mean is None else f"{one.mean:.4f}",
            MISSING if one.spread is None else f"{one.spread:.4f}",
            str(len(one.values)),
            _endings(one.runs),
            one.differs,
        )
        for one in found
    )
    return Table(header, rows, frozenset({"trials", "ended", "settings"}))


def _values(group: Sequence[Run]) -> list[float]:
    ended = [objective(run) for run in group if outcome(run) in COUNTED]
    return [value for value in ended if value is not None]


def _endings(group: Sequence[Run]) -> str:
    counts = Counter(outcome(run) for run in group)
    return ", ".join(f"{counts[status]} {status}" for status in ORDER if counts[status])
