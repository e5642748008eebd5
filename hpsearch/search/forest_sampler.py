"""Sampler with a forest that reads every trial: completed, pruned and running ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr

from hpsearch.search.space_points import (
    Point,
    Suggest,
    draw_neighbor,
    draw_point,
    encode,
)

STARTUP_TRIALS = 10
"""Trials with a report before the forest is fitted; points are random until then."""
NUM_TREES = 24
MIN_LEAF = 2
"""Minimum number of trials in a leaf."""
SPLIT_SHARE = 0.5
"""Share of the columns among which a split is chosen."""
RANDOM_CANDIDATES = 120
NEIGHBORS = 60
"""Candidates near the best trials."""
BEST_POINTS = 5
"""Best trials whose neighbors are candidates."""
MAX_TRIALS_FITTED = 250
"""Maximum number of trials that the forest is fitted to."""
MIN_PAIRS = 3
"""Minimum number of trials from whose growth that of others is estimated."""


@dataclass(frozen=True)
class Curve:
    """Reports of one trial, higher is better."""

    values: tuple[float, ...]
    is_final: bool
    """True if the trial was trained to the end, or failed."""
    has_failed: bool = False
    """True if it violated a constraint, as a collapse does."""


class ForestSampler(BaseSampler):
    """Expected improvement of the final value by a forest, on a space with conditions.

    All trials with a report are read. One that was pruned, or is still running, counts with the
    value that it would have reached if it had grown as the others did from there. Trials without
    a report count with the mean of the forest, so that many workers do not draw the same. The
    candidates are random points of the space and neighbors of the best trials; ``suggest`` is
    called for each, so that each has the parameters that its conditions ask for.

    Source: SMAC (Hutter, Hoos and Leyton-Brown, LION 2011), with extremely randomized trees
    (Geurts, Ernst and Wehenkel, Machine Learning 2006).

    Args:
        suggest: function of the space, with an Optuna trial as its argument.
        seed: seed of the draws.
        startup_trials: trials with a report before the forest is fitted.

    Example:
        >>> def objective(trial):
        ...     return trial.suggest_float("x", 0, 1) ** 2
        >>> study = optuna.create_study(sampler=ForestSampler(objective, seed=0))
        >>> study.optimize(objective, n_trials=12)
    """

    def __init__(
        self, suggest: Suggest, *, seed: int, startup_trials: int = STARTUP_TRIALS
    ) -> None:
        self._suggest, self._startup = suggest, startup_trials
        self._rng = np.random.default_rng(seed)
        self._independent = RandomSampler(seed=seed)
        self._chosen: tuple[int, Point] | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Choose the point of a trial; return the distributions of its parameters."""
        return dict(self._point_of(study, trial).distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters of the point."""
        return dict(self._point_of(study, trial).params)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter that the point does not have, as where other values are given."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _point_of(self, study: optuna.Study, trial: FrozenTrial) -> Point:
        if self._chosen is None or self._chosen[0] != trial.number:
            self._chosen = (trial.number, self._choose(study, trial))
        return self._chosen[1]

    def _choose(self, study: optuna.Study, trial: FrozenTrial) -> Point:
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        others = [
            other
            for other in study.get_trials(deepcopy=False, states=states)
            if other.number != trial.number and other.params
        ]
        reported = [other for other in others if other.intermediate_values]
        if len(reported) < self._startup:
            return draw_point(self._suggest, self._rng) or Point({}, {})
        finals = final_values([read_curve(other, study.direction) for other in reported])
        kept = rows_to_fit(finals, MAX_TRIALS_FITTED)
        points = [point_of(reported[i]) for i in kept]
        candidates = self._candidates(points, finals[kept])
        if not candidates:
            return Point({}, {})
        silent = [point_of(other) for other in others if not other.intermediate_values]
        gain = expected_gain(
            points, finals[kept], candidates, silent, seed=int(self._rng.integers(2**31))
        )
        return candidates[int(np.argmax(gain))]

    def _candidates(self, points: Sequence[Point], values: np.ndarray) -> list[Point]:
        best = [points[i] for i in np.argsort(-values, kind="stable")[:BEST_POINTS]]
        found = [draw_point(self._suggest, self._rng) for _ in range(RANDOM_CANDIDATES)]
        found += [
            draw_neighbor(self._suggest, self._rng, best[i % len(best)]) for i in range(NEIGHBORS)
        ]
        return [point for point in found if point is not None]


def expected_gain(
    points: Sequence[Point],
    values: np.ndarray,
    candidates: Sequence[Point],
    silent: Sequence[Point] = (),
    *,
    seed: int,
) -> np.ndarray:
    """Expected improvement of each candidate over the best value, by a forest.

    Args:
        points: points of trials.
        values: their values, higher is better.
        candidates: points to compare.
        silent: points of running trials without a value. The gain of a candidate is lowered by
            the share of trees in which it is in the leaf of one of them.
        seed: seed of the forest.

    Returns:
        Gain of each candidate.
    """
    from sklearn.ensemble import ExtraTreesRegressor  # takes a second to import

    rows = encode([*points, *candidates, *silent])
    known, asked, running = np.split(rows, [len(points), len(points) + len(candidates)])
    forest = ExtraTreesRegressor(
        NUM_TREES,
        min_samples_leaf=MIN_LEAF,
        max_features=SPLIT_SHARE,
        bootstrap=True,
        random_state=seed,
    ).fit(known, values)
    trees = forest.estimators_
    leaves = np.stack([tree.apply(asked) for tree in trees])
    guesses = np.stack([tree.tree_.value[at, 0, 0] for tree, at in zip(trees, leaves, strict=True)])
    gain = _improvement(guesses.mean(axis=0), guesses.std(axis=0), float(values.max()))
    if len(running):
        theirs = np.stack([tree.apply(running) for tree in trees])
        alike = (leaves[:, :, None] == theirs[:, None, :]).mean(axis=0)
        gain = gain * (1 - alike.max(axis=1))
    return gain


def _improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Expected improvement of normal variables over a value (Jones et al. 1998)."""
    deviation = np.maximum(deviation, 1e-9)
    z = (mean - best) / deviation
    return deviation * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))


def read_curve(trial: FrozenTrial, direction: StudyDirection) -> Curve:
    """Curve of a trial with a report, higher is better."""
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    values = [sign * value for _, value in sorted(trial.intermediate_values.items())]
    completed = trial.state == TrialState.COMPLETE
    if completed and trial.value is not None:
        values[-1] = sign * trial.value
    failed = any(value > 0 for value in trial.constraints.values())
    return Curve(tuple(values), is_final=completed or failed, has_failed=failed)


def final_values(curves: Sequence[Curve]) -> np.ndarray:
    """Value of each trial at the end of its budget, estimated where it was not trained to it.

    From one report to the next, a trial grows as those that went further did: by their mean, and a
    linear function of the value where it was, estimated by least squares. A trial that failed is
    as bad as the worst of the others, however bad its value is.

    Args:
        curves: at least one.

    Returns:
        Last value of each that is final; for the others an estimate.
    """
    sound = [curve for curve in curves if not curve.has_failed]
    if not sound:
        return np.zeros(len(curves))
    values = np.array([curve.values[-1] for curve in sound])
    reached = np.array([len(curve.values) for curve in sound])
    growing = np.array([not curve.is_final for curve in sound])
    for count in range(1, max(reached)):
        pairs = np.array([c.values[count - 1 : count + 1] for c in sound if len(c.values) > count])
        due = growing & (reached <= count)
        if len(pairs) >= MIN_PAIRS and due.any():
            values[due] += _growth(pairs, values[due])
    found = np.full(len(curves), values.min())
    found[[not curve.has_failed for curve in curves]] = values
    return found


def _growth(pairs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean growth at given values; pairs are values before and after, (n, 2)."""
    before, growth = pairs[:, 0], pairs[:, 1] - pairs[:, 0]
    apart = before - before.mean()
    spread = float(apart @ apart)
    slope = float(apart @ growth) / spread if spread > 0 else 0.0
    inside = np.clip(values, before.min(), before.max())  # no line is followed beyond its points
    return growth.mean() + np.clip(slope, -1, 1) * (inside - before.mean())


def rows_to_fit(values: np.ndarray, count: int) -> np.ndarray:
    """Rows of the best half of ``count`` and of an even spread over time of the others."""
    if len(values) <= count:
        return np.arange(len(values))
    order = np.argsort(-values, kind="stable")
    best, others = order[: count // 2], np.sort(order[count // 2 :])
    spread = others[np.linspace(0, len(others) - 1, count - len(best)).round().astype(int)]
    return np.sort(np.concatenate([best, spread]))


def point_of(trial: FrozenTrial) -> Point:
    """Point of a trial."""
    return Point(trial.params, trial.distributions)
