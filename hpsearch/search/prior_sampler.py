"""Sampler that mixes in beliefs about good values, and sheds those that turn out wrong.

A belief is a prior of the user, or the trials of an earlier search on other patches, at another
budget or width, whose values are not comparable but whose ranks may be.

Source: Mallik et al., PriorBand, NeurIPS 2023: the share of draws from the prior depends on how
likely the best trials so far are under it, compared with a uniform distribution. The other draws
are those of the search's own sampler.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig
from hpsearch.errors import UserError
from hpsearch.search.trial_queue import TRANSFER_ATTR, started_trials

MAX_SHARE = 0.5
"""Share of draws from a belief that nothing contradicts."""
BEST_SHARE = 0.25
"""Share of the finished trials that count as the best."""
MIN_TRIALS = 4
"""Finished trials before a belief is compared with them."""
SOURCE_SPREAD = 0.1
"""Spread of a draw around a trial of an earlier search."""


class Near(FrozenConfig):
    """Prior about a parameter: a normal distribution, truncated to its range, or a preference.

    Example:
        >>> Near(value=3e-4, spread=0.2).value
        0.0003
    """

    value: Any
    """Most likely value; a number, or one of the choices."""
    spread: float = Field(default=0.15, gt=0, le=1)
    """Standard deviation as a share of the range, logarithmic where the parameter is; for choices,
    the probability of all others together."""

    @model_validator(mode="before")
    @classmethod
    def _accept_value(cls, given: Any) -> Any:
        return given if isinstance(given, Near | Mapping) else {"value": given}

    def density(self, distribution: BaseDistribution, value: Any) -> float:
        """Density of a value relative to the uniform distribution; 1 where nothing is known."""
        if isinstance(distribution, CategoricalDistribution):
            count = len(distribution.choices)
            if count < 2:
                return 1.0
            same = value == self.value
            return count * ((1 - self.spread) if same else self.spread / (count - 1))
        low, high = _bounds(distribution)
        if high <= low:
            return 1.0
        return float(_normal(self, distribution).pdf(_position(distribution, value)))

    def draw(self, distribution: BaseDistribution, rng: np.random.Generator) -> Any:
        """Draw a value of a distribution."""
        if isinstance(distribution, CategoricalDistribution):
            others = [one for one in distribution.choices if one != self.value]
            if not others or rng.random() >= self.spread:
                return self.value
            return others[int(rng.integers(len(others)))]
        low, high = _bounds(distribution)
        share = _normal(self, distribution).ppf(rng.random()) if high > low else 0.0
        at = low + float(np.clip(share, 0, 1)) * (high - low)
        raw = math.exp(at) if getattr(distribution, "log", False) else at
        return _to_grid(distribution, raw)


def _bounds(distribution: Any) -> tuple[float, float]:
    low, high = float(distribution.low), float(distribution.high)
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _position(distribution: Any, value: float) -> float:
    """Position of a value in the range of its distribution, in [0, 1] inside it."""
    low, high = _bounds(distribution)
    return ((math.log(value) if distribution.log else float(value)) - low) / (high - low)


def _normal(prior: Near, distribution: BaseDistribution) -> Any:
    from scipy import stats  # heavy, and few searches have a prior

    center, spread = _position(distribution, prior.value), prior.spread
    return stats.truncnorm(-center / spread, (1 - center) / spread, loc=center, scale=spread)


def _to_grid(distribution: Any, value: float) -> Any:
    step = distribution.step
    if step:
        value = distribution.low + step * round((value - distribution.low) / step)
    value = min(max(value, distribution.low), distribution.high)
    return int(value) if isinstance(distribution, optuna.distributions.IntDistribution) else value


def check_prior(prior: Mapping[str, Near], distributions: Mapping[str, BaseDistribution]) -> str:
    """Sentence about a prior that does not go with the space; empty if it does.

    Args:
        prior: prior by name.
        distributions: distributions of the space by name, as far as drawn.
    """
    for name, near in prior.items():
        if name not in distributions:
            known = ", ".join(sorted(distributions))
            return f"the prior names {name!r}, which the space does not draw; it draws {known}"
        known = distributions[name]
        if isinstance(known, CategoricalDistribution):
            inside = near.value in known.choices
        else:
            number = isinstance(near.value, int | float) and not isinstance(near.value, bool)
            inside = number and known.low <= near.value <= known.high  # type: ignore[attr-defined]
        if not inside:
            return f"the prior of {name!r} is {near.value!r}, which the space cannot draw"
    return ""


def require_prior(
    prior: Mapping[str, Near], drawn: Sequence[Mapping[str, BaseDistribution]], *, finite: bool
) -> None:
    """Check that a prior goes with a space.

    Args:
        prior: prior by name.
        drawn: distributions of some random configurations.
        finite: True if the points of the search are known before it starts.

    Raises:
        UserError: if it names what the space does not draw, or all points are known.
    """
    wrong = check_prior(prior, {name: one for found in drawn for name, one in found.items()})
    if finite:
        wrong = "a search whose points are all known draws none from a prior; leave prior out"
    if wrong:
        raise UserError(wrong, code="invalid-prior")


def with_beliefs(
    inner: BaseSampler, study: optuna.Study, *, prior: Mapping[str, Near], seed: Sequence[int]
) -> BaseSampler:
    """Sampler that mixes in the prior and trials of an earlier search, if there are any."""
    sampler = PriorSampler(inner, prior=prior, seed=seed)
    return sampler if sampler.beliefs(study.get_trials(deepcopy=False)) else inner


class Belief(Protocol):
    """Guess about where good values lie."""

    def share(self, best: Sequence[FrozenTrial], ended: Sequence[FrozenTrial]) -> float:
        """Share of the draws that it makes, in [0, 1], given the best and all ended trials."""
        ...

    def priors(self, rng: np.random.Generator) -> Mapping[str, Near]:
        """Priors by name for the next draw."""
        ...


class UserPrior:
    """Belief of the user, of which the trials in its way take a share away."""

    def __init__(self, prior: Mapping[str, Near]) -> None:
        self._prior = prior

    def share(self, best: Sequence[FrozenTrial], ended: Sequence[FrozenTrial]) -> float:
        """Share by the mean density of the best trials, the better the heavier, against 1."""
        if len(ended) < MIN_TRIALS:
            return MAX_SHARE
        weights = 1 / np.arange(1, len(best) + 1)
        likely = float(np.average([self._density(trial) for trial in best], weights=weights))
        return MAX_SHARE * likely / (likely + 1)

    def _density(self, trial: FrozenTrial) -> float:
        """Geometric mean over the parameters that the prior is about."""
        known = [
            self._prior[name].density(trial.distributions[name], value)
            for name, value in trial.params.items()
            if name in self._prior
        ]
        return math.exp(np.mean(np.log(np.maximum(known, 1e-12)))) if known else 1.0

    def priors(self, rng: np.random.Generator) -> Mapping[str, Near]:
        """Priors of the user."""
        return self._prior


class EarlierSearch:
    """Belief that good points of an earlier search are good here, as far as ranks agree.

    Args:
        trials: its trials, each with its rank in ``TRANSFER_ATTR``: 0 is the worst, 1 the best.
    """

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._trials = sorted(trials, key=lambda trial: -trial.user_attrs[TRANSFER_ATTR])

    def share(self, best: Sequence[FrozenTrial], ended: Sequence[FrozenTrial]) -> float:
        """Share by the similarity of ranks: Spearman's of own trials and their nearest ones."""
        if len(ended) < MIN_TRIALS:
            return MAX_SHARE
        expected = [self._rank_near(trial) for trial in ended]
        order = np.arange(len(ended), 0, -1)  # ``ended`` is best first
        if len(set(expected)) < 2:
            return MAX_SHARE / 2
        from scipy.stats import rankdata

        return MAX_SHARE * max(0.0, float(np.corrcoef(order, rankdata(expected))[0, 1]))

    def _rank_near(self, trial: FrozenTrial) -> float:
        nearest = min(self._trials, key=lambda other: distance(trial, other))
        return nearest.user_attrs[TRANSFER_ATTR]

    def priors(self, rng: np.random.Generator) -> Mapping[str, Near]:
        """Priors around one of the best trials."""
        best = self._trials[: max(1, round(BEST_SHARE * len(self._trials)))]
        chosen = best[int(rng.integers(len(best)))]
        return {
            name: Near(value=value, spread=SOURCE_SPREAD) for name, value in chosen.params.items()
        }


def distance(one: FrozenTrial, other: FrozenTrial) -> float:
    """Mean distance of two trials over their parameters; 1 for one that only one of them has."""
    names = one.params.keys() | other.params.keys()
    total = 0.0
    for name in names:
        if name not in one.params or name not in other.params:
            total += 1.0
            continue
        known = one.distributions[name]
        a, b = one.params[name], other.params[name]
        if isinstance(known, CategoricalDistribution):
            total += float(a != b)
        elif not known.single():
            total += min(1.0, abs(_position(known, a) - _position(known, b)))
    return total / max(1, len(names))


class PriorSampler(BaseSampler):
    """Sampler that draws some trials from beliefs, and all others from another sampler.

    Args:
        inner: sampler of the other trials, and of names that a belief is not about.
        prior: prior of the user by name; empty for none.
        seed: numbers that seed the draws, such as those of the search and of the point.
    """

    def __init__(
        self, inner: BaseSampler, *, prior: Mapping[str, Near], seed: Sequence[int]
    ) -> None:
        self._inner, self._prior = inner, prior
        self._chosen: tuple[int, Mapping[str, Near] | None] | None = None
        self._rng = np.random.default_rng([*seed, 1])

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return no parameters for a trial that a belief draws."""
        if self._believed(study, trial) is not None:
            return {}
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw parameters jointly, as the other sampler does."""
        if self._believed(study, trial) is not None:
            return {}
        return self._inner.sample_relative(study, trial, search_space)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Prepare a trial, as the other sampler does."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Take note of the end of a trial, as the other sampler does."""
        self._inner.after_trial(study, trial, state, values)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter from the belief of this trial, or as the other sampler does."""
        near = (self._believed(study, trial) or {}).get(param_name)
        if near is None or check_prior({param_name: near}, {param_name: param_distribution}):
            return self._inner.sample_independent(study, trial, param_name, param_distribution)
        return near.draw(param_distribution, self._rng)

    def _believed(self, study: optuna.Study, trial: FrozenTrial) -> Mapping[str, Near] | None:
        """Priors that this trial is drawn from; None for one of the other sampler."""
        if self._chosen is None or self._chosen[0] != trial.number:
            self._chosen = (trial.number, self._choose(study))
        return self._chosen[1]

    def _choose(self, study: optuna.Study) -> Mapping[str, Near] | None:
        trials = study.get_trials(deepcopy=False)
        beliefs = self.beliefs(trials)
        if not beliefs:
            return None
        ended = best_first(started_trials(trials), study.directions[0])
        best = ended[: math.ceil(BEST_SHARE * len(ended))]
        point = self._rng.random() * len(beliefs)
        belief = beliefs[int(point)]
        return belief.priors(self._rng) if point % 1 < belief.share(best, ended) else None

    def beliefs(self, trials: Sequence[FrozenTrial]) -> list[Belief]:
        """Beliefs of a search, given all trials of its study."""
        earlier = [trial for trial in trials if TRANSFER_ATTR in trial.user_attrs]
        found: list[Belief] = [UserPrior(self._prior)] if self._prior else []
        return [*found, *([EarlierSearch(earlier)] if earlier else [])]


def best_first(trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
    """Completed and pruned trials, best first by the first objective.

    Of pruned trials those that lasted longer are better; trials that violate a constraint are last.
    """
    sign = 1 if direction == StudyDirection.MINIMIZE else -1

    def key(trial: FrozenTrial) -> tuple[float, ...]:
        bad = any(value > 0 for value in trial.constraints.values())
        if trial.state == TrialState.COMPLETE:
            return (bad, 0, sign * (trial.values or [0.0])[0])
        step = trial.last_step or 0
        return (bad, 1, -step, sign * trial.intermediate_values.get(step, 0.0))

    return sorted(
        (t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)), key=key
    )
