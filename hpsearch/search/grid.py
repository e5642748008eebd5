"""Enumeration of a define-by-run space, and validation of a point in it."""

import json
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

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError, list_names
from hpsearch.search.samplers import log_warnings_only

MAX_GRID_POINTS = 10_000
"""Maximum number of combinations in a grid; more are taken for a mistake."""

MAX_LISTED_POINTS = 1_000
"""Maximum number of points of a space that is listed to find those that were not drawn yet."""

Suggest = Callable[[optuna.Trial], object]


def enumerate_grid(suggest: Suggest, *, limit: int = MAX_GRID_POINTS) -> list[dict[str, Any]]:
    """List the parameter values of every combination, by the names that ``suggest`` uses.

    Conditions are followed: a name that is suggested in one branch varies only there. The last
    name that is suggested varies fastest.

    Raises:
        UserError: if a name is continuous, or there are more than ``limit`` combinations.
    """
    sampler, found = _GridSampler(limit), []
    while True:
        found.append(_run_suggest(suggest, sampler).params)
        if not sampler.advance():
            return found
        if len(found) == limit:
            raise UserError(
                f"the grid has more than {limit:,} combinations; let fewer settings vary, "
                "or use a sampler",
                code="grid-too-large",
            )


def config_key(config: Mapping[str, Any]) -> str:
    """Key of a configuration as JSON values, the same whatever the order of its names."""
    return json.dumps(config, sort_keys=True)


def distinct_points(
    suggest: Callable[[optuna.Trial], TrialConfig], *, limit: int = MAX_LISTED_POINTS
) -> dict[str, dict[str, Any]] | None:
    """List a point for each different configuration of a space.

    Returns:
        Parameter values by ``config_key``; None if there are more than ``limit`` combinations, or
        infinitely many.
    """
    try:
        points = enumerate_grid(suggest, limit=limit)
    except UserError:
        return None
    found = dict[str, dict[str, Any]]()
    for point in points:
        trial = optuna.create_study(sampler=_FixedPointSampler(point, complete=True)).ask()
        found[config_key(suggest(trial).model_dump(mode="json"))] = point
    return found


def validate_point(
    suggest: Suggest, point: Mapping[str, Any], *, complete: bool
) -> dict[str, BaseDistribution]:
    """Check that ``suggest`` uses each value of a point, and return their distributions.

    Args:
        suggest: function that draws a configuration.
        point: parameter values by name.
        complete: whether the point must give every value that ``suggest`` asks for.

    Raises:
        UserError: with the name that is missing, unknown or out of range.
    """
    trial = _run_suggest(suggest, _FixedPointSampler(point, complete))
    unknown = [name for name in point if name not in trial.params]
    if unknown:
        raise UserError(
            f"{_format_point(point)}: suggest does not use {unknown[0]!r} there, "
            f"only {', '.join(trial.params)}; leave it out or correct the name",
            code="unknown-parameter",
        )
    return trial.distributions


def check_storable(distributions: Mapping[str, BaseDistribution]) -> None:
    """Check that a study can store the values of parameters; JSON has no types of NumPy.

    Raises:
        UserError: with the name of a parameter whose values it cannot store.
    """
    for name, distribution in distributions.items():
        if isinstance(distribution, CategoricalDistribution):
            values = distribution.choices
        elif isinstance(distribution, FloatDistribution | IntDistribution):
            values = (distribution.low, distribution.high, distribution.step)
        else:
            continue
        for value in values:
            if not isinstance(value, str | bool | int | float | None):
                raise UserError(
                    f"suggest draws {name!r} from values of type {type(value).__name__}, such as "
                    f"{str(value)[:60]!r}, which a study cannot store; use numbers, strings, True, "
                    "False or None (of a NumPy array: its tolist()), and build other values from "
                    "them",
                    code="value-not-storable",
                )


def varying_names(
    drawn: Sequence[Mapping[str, BaseDistribution]], *, conditional: bool = True
) -> list[str]:
    """Names of parameters whose distribution differs between trials, in alphabetical order.

    Args:
        drawn: distributions by name, of several trials.
        conditional: whether to include parameters that some trials do not have.
    """
    names = {name for trial in drawn for name in trial}
    found = {name: [trial[name] for trial in drawn if name in trial] for name in names}
    return sorted(
        name
        for name, own in found.items()
        if any(other != own[0] for other in own) or (conditional and len(own) < len(drawn))
    )


def _run_suggest(suggest: Suggest, sampler: optuna.samplers.BaseSampler) -> optuna.Trial:
    log_warnings_only()
    # A new study for each draw: in a growing one, Optuna searches for waiting trials at each draw.
    trial = optuna.create_study(sampler=sampler).ask()
    suggest(trial)
    return trial


class _IndependentSampler(optuna.samplers.BaseSampler):
    """Base of samplers that choose parameter by parameter."""

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


class _GridSampler(_IndependentSampler):
    """Sampler that enumerates all combinations, the last parameter fastest."""

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
            self._path.append((_choices(param_name, param_distribution, self._limit), 0))
        values, index = self._path[self._depth]
        self._depth += 1
        return values[index]

    def advance(self) -> bool:
        """Move to the next combination; False if there is none."""
        self._depth = 0
        while self._path:
            values, index = self._path.pop()
            if index + 1 < len(values):
                self._path.append((values, index + 1))
                return True
        return False


class _FixedPointSampler(_IndependentSampler):
    """Sampler of a point's values, with the first allowed value where the point has none.

    Optuna's ``FixedTrial`` cannot complete a point, and only warns about values out of range.
    """

    def __init__(self, point: Mapping[str, Any], complete: bool) -> None:
        self._point, self._complete = point, complete

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if param_name in self._point:
            value = self._point[param_name]
            if not _is_allowed(value, param_distribution):
                raise UserError(
                    f"{_format_point(self._point)}: {param_name}={value!r} is not in the space, "
                    f"which has {_format_range(param_distribution)}",
                    code="value-not-in-space",
                )
            return value
        if self._complete:
            raise UserError(
                f"{_format_point(self._point)}: {param_name!r} is missing; a point of Fixed "
                "needs every value that suggest uses",
                code="missing-parameter",
            )
        match param_distribution:
            case CategoricalDistribution(choices=choices):
                return choices[0]
            case FloatDistribution() | IntDistribution():
                return param_distribution.low
        raise AssertionError(f"unknown Optuna distribution {param_distribution}")


def _choices(name: str, distribution: BaseDistribution, limit: int) -> Sequence[Any]:
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
                "make it categorical, or use another sampler",
                code="continuous-parameter",
            )
    if len(values) > limit:
        raise UserError(
            f"{name!r} alone has more than {limit:,} values; give it a larger step",
            code="grid-too-large",
        )
    return values


def _is_allowed(value: Any, distribution: BaseDistribution) -> bool:
    """Return whether a distribution contains a value, as Optuna checks for a new trial."""
    try:
        optuna.trial.create_trial(value=0, params={"x": value}, distributions={"x": distribution})
    except (ValueError, TypeError):
        return False
    return True


def _format_range(distribution: BaseDistribution) -> str:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return ", ".join(map(repr, choices))
        case FloatDistribution(low=low, high=high, step=step):
            return f"{low:g} to {high:g}" + ("" if step is None else f" in steps of {step:g}")
        case IntDistribution(low=low, high=high, step=step):
            return f"{low} to {high}" + ("" if step == 1 else f" in steps of {step}")
    return str(distribution)


def _format_point(point: Mapping[str, Any]) -> str:
    return "the point " + ", ".join(f"{name}={value!r}" for name, value in point.items())


def varying_remark(names: Sequence[str], what: str, consequence: str) -> list[str]:
    """Sentence about parameters that vary between trials; none without such parameters."""
    if not names:
        return []
    listed = list_names(map(repr, names), limit=5)
    return [f"parameters that {what}: {listed}; {consequence}"]
