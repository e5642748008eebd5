"""Every combination of a define-by-run space, once: a walk down its tree of choices."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from hpsearch.errors import UserError

LIMIT = 10_000
"""A grid with more combinations than this is taken for a mistake."""

Suggest = Callable[[optuna.Trial], object]


def combinations(suggest: Suggest, *, limit: int = LIMIT) -> list[dict[str, Any]]:
    """Parameter values of every combination, by the names that ``suggest`` uses.

    Conditions are followed: what is suggested in one branch only varies there only. The last name
    that is suggested varies fastest.

    Raises:
        UserError: if a name is continuous, or there are more than ``limit`` combinations.
    """
    walk, found = _Walk(limit), []
    while True:
        found.append(_ask(suggest, walk).params)
        if not walk.turn():
            return found
        if len(found) == limit:
            raise UserError(
                f"the grid has more than {limit:,} combinations; let fewer settings vary, "
                "or use a sampler"
            )


def check_point(
    suggest: Suggest, point: Mapping[str, Any], *, whole: bool
) -> dict[str, BaseDistribution]:
    """Make sure that ``suggest`` uses each value of a point; the ranges that it takes them from.

    Args:
        whole: whether the point must give every value that ``suggest`` asks for.

    Raises:
        UserError: naming what is missing, unknown or out of range.
    """
    used = _ask(suggest, _Follow(point, whole))
    unknown = [name for name in point if name not in used.params]
    if unknown:
        raise UserError(
            f"{_words(point)}: suggest does not ask for {unknown[0]!r} there, "
            f"only for {', '.join(used.params)}; leave it out or mend the name"
        )
    return used.distributions


def _ask(suggest: Suggest, sampler: optuna.samplers.BaseSampler) -> optuna.Trial:
    # A study of its own each time: one that grows would be searched for waiting trials each time.
    trial = optuna.create_study(sampler=sampler).ask()
    suggest(trial)
    return trial


class _Choosing(optuna.samplers.BaseSampler):
    """A sampler that decides name by name."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        return {}


class _Walk(_Choosing):
    """Takes the choices in order, as the wheels of an odometer."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._path: list[tuple[Sequence[Any], int]] = []
        self._depth = 0

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if self._depth == len(self._path):
            self._path.append((_values(param_name, param_distribution, self._limit), 0))
        values, index = self._path[self._depth]
        self._depth += 1
        return values[index]

    def turn(self) -> bool:
        """Go on to the next combination; whether there is one."""
        self._depth = 0
        while self._path:
            values, index = self._path.pop()
            if index + 1 < len(values):
                self._path.append((values, index + 1))
                return True
        return False


class _Follow(_Choosing):
    """Takes a point's values, and the first that is allowed where the point has none."""

    def __init__(self, point: Mapping[str, Any], whole: bool) -> None:
        self._point, self._whole = point, whole

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if param_name in self._point:
            value = self._point[param_name]
            if not _allowed(value, param_distribution):
                raise UserError(
                    f"{_words(self._point)}: {param_name}={value!r} is not in the space, which has "
                    f"{_range(param_distribution)}"
                )
            return value
        if self._whole:
            raise UserError(
                f"{_words(self._point)}: it gives no {param_name!r}; a chosen point needs every "
                "value that suggest asks for"
            )
        match param_distribution:
            case CategoricalDistribution(choices=choices):
                return choices[0]
            case FloatDistribution() | IntDistribution():
                return param_distribution.low
        raise AssertionError(f"Optuna has no other distribution than {param_distribution}")


def _values(name: str, distribution: BaseDistribution, limit: int) -> Sequence[Any]:
    match distribution:
        case CategoricalDistribution(choices=values):
            pass
        case IntDistribution(low=low, high=high, step=step):
            values = range(low, high + 1, step)
        case FloatDistribution(low=low, high=high, step=float(step)):
            # Decimal: 0.1 + 2 * 0.1 is not 0.3
            first, width = Decimal(str(low)), Decimal(str(step))
            count = round((high - low) / step) + 1
            values = [float(first + i * width) for i in range(min(count, limit + 1))]
        case _:
            raise UserError(
                f"{name!r} is continuous, so a grid cannot list its values; give it a step, "
                "make it categorical, or use another sampler"
            )
    if len(values) > limit:
        raise UserError(f"{name!r} alone has more than {limit:,} values; give it a larger step")
    return values


def _allowed(value: Any, distribution: BaseDistribution) -> bool:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return any(value is choice or value == choice for choice in choices)
        case FloatDistribution(low=low, high=high, step=step):
            return _number(value) and low <= value <= high and _on_step(value - low, step)
        case IntDistribution(low=low, high=high, step=step):
            return _number(value) and low <= value <= high and _on_step(value - low, step)
    return False


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _on_step(offset: float, step: float | None) -> bool:
    return step is None or abs(offset / step - round(offset / step)) < 1e-8


def _range(distribution: BaseDistribution) -> str:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return ", ".join(map(repr, choices))
        case FloatDistribution(low=low, high=high, step=step):
            return f"{low:g} to {high:g}" + ("" if step is None else f" in steps of {step:g}")
        case IntDistribution(low=low, high=high, step=step):
            return f"{low} to {high}" + ("" if step == 1 else f" in steps of {step}")
    return str(distribution)


def _words(point: Mapping[str, Any]) -> str:
    return "the point " + ", ".join(f"{name}={value!r}" for name, value in point.items())
