"""Points of a space without a study: drawn at random, or near another one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Suggest = Callable[[optuna.Trial], Any]
CHANGED_NAMES = 2
"""Mean number of parameters in which a neighbor differs from its point."""
STEP = 0.2
"""Standard deviation of the change of a number, as a share of its range."""
BELOW_ONE = math.nextafter(1.0, 0.0)
ABSENT = -1.0
"""Column of a parameter that a point does not have; numbers lie in [0, 1]."""


@dataclass(frozen=True)
class Point:
    """Parameter values of one configuration, with their distributions."""

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]


class RecordedDraw(optuna.trial.FixedTrial):
    """Trial of no study: takes given values where they are allowed, and draws the others.

    Args:
        given: values by name.
        rng: generator of the others.
    """

    def __init__(self, given: Mapping[str, Any], rng: np.random.Generator) -> None:
        super().__init__({})
        self._given, self._rng = given, rng
        self._drawn: dict[str, tuple[Any, BaseDistribution]] = {}

    @property
    def point(self) -> Point:
        """All values so far."""
        drawn = self._drawn.items()
        return Point({name: v for name, (v, _) in drawn}, {name: d for name, (_, d) in drawn})

    @property
    def params(self) -> dict[str, Any]:
        """Values so far, by name."""
        return dict(self.point.params)

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Distributions so far, by name."""
        return dict(self.point.distributions)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._value(name, _float(low, high, log=log, step=step))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        return self._value(name, _int(low, high, log=log, step=step))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._value(name, CategoricalDistribution(choices))

    def _value(self, name: str, distribution: BaseDistribution) -> Any:
        if name not in self._drawn:
            value = self._given.get(name, self)
            if value is self or not _contains(distribution, value):
                value = from_unit(self._rng.random(), distribution)
            self._drawn[name] = (value, distribution)
        return self._drawn[name][0]


def draw_point(
    suggest: Suggest, rng: np.random.Generator, given: Mapping[str, Any] | None = None
) -> Point | None:
    """Draw a point of a space; None if ``suggest`` refuses the combination.

    Args:
        suggest: function of the space.
        rng: generator of the values that are not given.
        given: values by name; those that the space does not allow are drawn.
    """
    trial = RecordedDraw(given or {}, rng)
    try:
        suggest(trial)  # type: ignore[arg-type]
    except Exception:  # a combination of values that a setting forbids; a real trial reports it
        return None
    return trial.point


def draw_neighbor(suggest: Suggest, rng: np.random.Generator, point: Point) -> Point | None:
    """Draw a point that differs from another in a few values, and in what depends on them."""
    given, share = dict(point.params), min(1.0, CHANGED_NAMES / max(len(point.params), 1))
    changed = [name for name in given if rng.random() < share]
    for name in changed or list(rng.permutation(list(given))[:1]):
        distribution = point.distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            del given[name]
            continue
        moved = to_unit(given[name], distribution) + STEP * rng.standard_normal()
        given[name] = from_unit(min(max(moved, 0.0), BELOW_ONE), distribution)
    return draw_point(suggest, rng, given)


def to_unit(value: Any, distribution: BaseDistribution) -> float:
    """Map a number to [0, 1], by its logarithm where it is drawn so."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return float((value - low) / (high - low)) if high > low else 0.5


def from_unit(share: float, distribution: BaseDistribution) -> Any:
    """Map a number in [0, 1) to a value of a distribution, each with its probability."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    half = (distribution.step or 0) / 2
    if distribution.log:
        first, last = math.log(low - half), math.log(high + half)
        raw = math.exp(first + share * (last - first))
    else:
        raw = low - half + share * (high - low + 2 * half)
    if distribution.step is not None:
        raw = low + distribution.step * round((raw - low) / distribution.step)
    raw = min(max(raw, low), high)
    return int(raw) if isinstance(distribution, IntDistribution) else raw


def encode(points: Sequence[Point]) -> np.ndarray:
    """Matrix of points: a column for each number, and one for each choice of a category.

    Numbers lie in [0, 1], by their logarithm where they are drawn so. A parameter that a point does
    not have is -1, which a tree splits off, and has none of the choices.

    Returns:
        float32 (points, columns).
    """
    names = dict.fromkeys(name for point in points for name in point.params)
    columns = [np.empty((len(points), 0))]
    for name in names:
        rows = [i for i, point in enumerate(points) if name in point.params]
        values = [points[i].params[name] for i in rows]
        distributions = [points[i].distributions[name] for i in rows]
        if isinstance(distributions[0], CategoricalDistribution):
            columns.append(_encode_choices(values, rows, len(points)))
        else:
            columns.append(_encode_numbers(values, distributions, rows, len(points)))
    return np.concatenate(columns, axis=1).astype(np.float32)


def _encode_choices(values: list[Any], rows: list[int], count: int) -> np.ndarray:
    keys = [(type(value), value) for value in values]  # True is not 1
    at = {key: column for column, key in enumerate(dict.fromkeys(keys))}
    found = np.zeros((count, len(at)))
    found[rows, [at[key] for key in keys]] = 1.0
    return found


def _encode_numbers(
    values: list[Any], distributions: list[Any], rows: list[int], count: int
) -> np.ndarray:
    """Column on the range that all trials together have, in case it differs between them."""
    numbers = np.array(values, dtype=float)
    low = float(min(distribution.low for distribution in distributions))
    high = float(max(distribution.high for distribution in distributions))
    if all(distribution.log for distribution in distributions):
        numbers, low, high = np.log(numbers), np.log(low), np.log(high)
    found = np.full((count, 1), ABSENT)
    found[rows, 0] = (numbers - low) / (high - low) if high > low else 0.5
    return found


_float, _int = lru_cache(1024)(FloatDistribution), lru_cache(1024)(IntDistribution)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        if isinstance(distribution, CategoricalDistribution):
            return value in distribution.choices
        internal = distribution.to_internal_repr(value)
    except (ValueError, TypeError):
        return False
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    return low <= internal <= high
