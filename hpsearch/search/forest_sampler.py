"""Sampler with a forest that reads every trial: completed, pruned and running ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtri

from hpsearch.search.space_points import Point, Suggest, draw_neighbor, draw_point, encode

STARTUP_TRIALS = 10
"""Trials with a report before the forest is fitted; points are random until then."""
NUM_TREES = 30
MIN_LEAF = 2
"""Minimum number of trials in a leaf."""
SPLIT_SHARE = 1 / 3
"""Share of the columns among which a split is chosen."""
CANDIDATES = 180
NEIGHBORS = 60
"""Candidates near the best trials, among all candidates of a point that has some."""
NEIGHBOR_SHARE = 0.5
"""Share of the points with such candidates. A forest predicts a high rank near the best trials, so
with neighbors for every point it stays near the first good ones."""
BEST_POINTS = 5
"""Best trials whose neighbors are candidates."""
MAX_TRIALS_FITTED = 200
"""Maximum number of trials that the forest is fitted to."""


class ForestSampler(BaseSampler):
    """The point with the highest rank that a random forest predicts, on a space with conditions.

    All trials with a report are read, each with its last value: pruned ones, and running ones too.
    They are ranked together, so that no value can be so bad that it hides the differences of the
    others, and a trial that failed is below all of them. Running trials without a report lower the
    score of points like them, so that many workers do not draw the same. The candidates are random
    points of the space, and for half of the points neighbors of the best trials too; ``suggest`` is
    called for each, so that each has the parameters that its conditions ask for. The forest is
    another one for each point, grown on other samples of the trials, so that its choices vary where
    it is not certain.

    Source: SMAC (Hutter, Hoos and Leyton-Brown, LION 2011), without its expected improvement,
    which was worse on recorded curves, and with ranks.

    Args:
        suggest: function of the space, with an Optuna trial as its argument.
        seed: seed of the draws.
        startup_trials: trials with a report before the forest is fitted.

    Example:
        >>> def objective(trial):
        ...     trial.report(trial.suggest_float("x", 0, 1) ** 2, 1)
        ...     return trial.params["x"] ** 2
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
        reported = [other for other in others if last_value(other) is not None]
        if len(reported) < self._startup:
            return draw_point(self._suggest, self._rng) or Point({}, {})
        scores = rank_scores(reported, study.direction)
        kept = rows_to_fit(scores, MAX_TRIALS_FITTED)
        points = [point_of(reported[i]) for i in kept]
        candidates = self._candidates(points, scores[kept])
        if not candidates:
            return Point({}, {})
        silent = [point_of(other) for other in others if last_value(other) is None]
        seed = int(self._rng.integers(2**31))
        predicted = predict_scores(points, scores[kept], candidates, silent, seed=seed)
        return candidates[int(np.argmax(predicted))]

    def _candidates(self, points: Sequence[Point], scores: np.ndarray) -> list[Point]:
        best = [points[i] for i in np.argsort(-scores, kind="stable")[:BEST_POINTS]]
        near = NEIGHBORS if self._rng.random() < NEIGHBOR_SHARE else 0
        found = [draw_point(self._suggest, self._rng) for _ in range(CANDIDATES - near)]
        found += [draw_neighbor(self._suggest, self._rng, best[i % len(best)]) for i in range(near)]
        return [point for point in found if point is not None]


def predict_scores(
    points: Sequence[Point],
    scores: np.ndarray,
    candidates: Sequence[Point],
    silent: Sequence[Point] = (),
    *,
    seed: int,
) -> np.ndarray:
    """Score of each candidate, as a random forest predicts it.

    Args:
        points: points of trials.
        scores: their scores, higher is better, with a mean of about 0.
        candidates: points to compare.
        silent: points of running trials without a value. A score above 0 is lowered by the share of
            trees in which the candidate is in the leaf of one of them.
        seed: seed of the forest.

    Returns:
        Score of each candidate.
    """
    from sklearn.ensemble import RandomForestRegressor  # takes a second to import

    rows = encode([*points, *candidates, *silent])
    known, asked, running = np.split(rows, [len(points), len(points) + len(candidates)])
    forest = RandomForestRegressor(
        NUM_TREES, min_samples_leaf=MIN_LEAF, max_features=SPLIT_SHARE, random_state=seed
    ).fit(known, scores)
    trees = [tree.tree_ for tree in forest.estimators_]
    leaves = np.stack([tree.apply(asked) for tree in trees])
    values = [tree.value[:, 0, 0] for tree in trees]
    found = np.mean([value[at] for value, at in zip(values, leaves, strict=True)], axis=0)
    if len(running):
        theirs = np.stack([tree.apply(running) for tree in trees])
        alike = (leaves[:, :, None] == theirs[:, None, :]).mean(axis=0)
        found -= np.maximum(found, 0.0) * alike.max(axis=1)
    return found


def last_value(trial: FrozenTrial) -> float | None:
    """Value of a completed trial, or the last one that a trial reported; None without any."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return None if trial.last_step is None else trial.intermediate_values[trial.last_step]


def rank_scores(trials: Sequence[FrozenTrial], direction: StudyDirection) -> np.ndarray:
    """Normal scores of the ranks of trials by their last values, higher is better.

    Trials that violate a constraint, as a collapse does, rank below all others. Equal trials have
    equal scores.

    Args:
        trials: each with a value.
        direction: of the study.
    """
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    values = np.array([sign * (last_value(trial) or 0.0) for trial in trials])
    failed = [any(value > 0 for value in trial.constraints.values()) for trial in trials]
    values[failed] = -np.inf
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return ndtri(middle[inverse] / len(values))


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
