"""Sampler with a Gaussian process over learning curves: reads every report of every trial."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.linalg import cholesky, solve_triangular
from scipy.spatial.distance import cdist
from threadpoolctl import ThreadpoolController

from hpsearch.search.space_points import (
    ABSENT,
    Point,
    Suggest,
    draw_neighbor,
    draw_point,
    encode,
)

STARTUP_TRIALS = 8
"""Trials with a report before the process is fitted; points are random until then."""
EXPLORATION = 2.0
"""Standard deviations that are added to the mean of a candidate; 0 to 1 were worse where samplers
propose freely, and the same on rows."""
CANDIDATES = 180
NEIGHBORS = 90
"""Candidates near the best trials, among all candidates of a point."""
BEST_POINTS = 5
"""Trials with the highest predicted final values, whose neighbors are candidates."""
MAX_TRIALS_FITTED = 100
MAX_REPORTS_FITTED = 4
"""Reports of a trial that are used: the first, the last, and a spread between them."""
LOW_QUANTILE = 0.1
"""Quantile of the values to which lower ones are raised, those of failed trials among them."""

# Standard deviations below are relative to that of all values. They have the highest likelihood on
# 150 recorded curves (benchmarks/photographs.parquet).
LENGTH = 0.75
"""Square of the length scale, relative to the mean squared distance of two random points."""
OF_POINT, OF_TRIAL = 0.89, 0.46
"""Part of a final value that depends on the point, and part that only the trial itself shows."""
ON_THE_WAY = 0.41
"""Distance of a curve at its beginning from its end, as far as no other curve shows it."""
OF_ALL, NOISE = 0.26, 0.18
"""Curve that all trials share, and noise of a report."""
CHANGE = 0.66
"""Share of the variance of the part of the point that changes over the budget."""
CHANGE_TIME = 0.5
"""Share of the budget over which it does."""


@dataclass(frozen=True)
class Reports:
    """Reports of some trials; each array has one entry a report.

    Args:
        trial: index of its trial.
        time: share of the budget, in (0, 1].
        value: standardized value, higher is better.
    """

    trial: np.ndarray
    time: np.ndarray
    value: np.ndarray


class GPSampler(BaseSampler):
    """The point with the best upper bound of the value at the end of its budget.

    The reports of all trials are read: of pruned trials, and of running ones too. A value is
    modeled as a part that depends on the point, a part of the trial's own and a part that shrinks
    up to the end of the budget, so a report early in a curve is a less certain sign of its end
    than a later one. Values of failed trials, and the lowest tenth, count as equally bad. Running
    trials without a report count as if they had ended as predicted, so that many workers do not
    draw the same. Half of the candidates are random points of the space, the others
    neighbors of the best trials; ``suggest`` is called for each, so that each has the parameters
    that its conditions ask for.

    Source: Swersky, Snoek and Adams, Freeze-Thaw Bayesian Optimization, arXiv 2014, for the process
    over points and curves, here with kernels that are fixed.

    Args:
        suggest: function of the space, with an Optuna trial as its argument.
        seed: seed of the draws.
        budget: step of the last report of a full trial; None for the highest step so far.
        startup_trials: trials with a report before the process is fitted.

    Example:
        >>> def objective(trial):
        ...     trial.report(trial.suggest_float("x", 0, 1) ** 2, 1)
        ...     return trial.params["x"] ** 2
        >>> study = optuna.create_study(sampler=GPSampler(objective, seed=0))
        >>> study.optimize(objective, n_trials=12)
    """

    def __init__(
        self,
        suggest: Suggest,
        *,
        seed: int,
        budget: int | None = None,
        startup_trials: int = STARTUP_TRIALS,
    ) -> None:
        self._suggest, self._budget, self._startup = suggest, budget, startup_trials
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
    ) -> dict[str, object]:
        """Return the parameters of the point."""
        return dict(self._point_of(study, trial).params)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> object:
        """Draw a parameter that the point does not have, as where other values are given."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _point_of(self, study: optuna.Study, trial: FrozenTrial) -> Point:
        if self._chosen is None or self._chosen[0] != trial.number:
            with _libraries().limit(limits=1, user_api="blas"):
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
        running = (other for other in others if other.state == TrialState.RUNNING)
        silent = [point_of(other) for other in running if last_value(other) is None]
        reported = trials_to_fit(reported, study.direction, MAX_TRIALS_FITTED)
        reports = read_reports(reported, study.direction, self._budget)
        points = [point_of(other) for other in reported]
        drawn = (draw_point(self._suggest, self._rng) for _ in range(CANDIDATES - NEIGHBORS))
        candidates = [point for point in drawn if point is not None]
        if not candidates:
            return Point({}, {})
        candidates += self._neighbors(points, reports)
        mean, deviation = predict_ends(points, reports, candidates, silent)
        return candidates[int(np.argmax(mean + EXPLORATION * deviation))]

    def _neighbors(self, points: Sequence[Point], reports: Reports) -> list[Point]:
        """Points near the trials with the highest predicted values."""
        mean, _ = predict_ends(points, reports, points, own=True)
        best = [points[i] for i in np.argsort(-mean, kind="stable")[:BEST_POINTS]]
        near = (
            draw_neighbor(self._suggest, self._rng, best[i % len(best)]) for i in range(NEIGHBORS)
        )
        return [point for point in near if point is not None]


@cache
def _libraries() -> ThreadpoolController:
    """Libraries of linear algebra. Several threads make a draw four times as expensive where other
    processes use the cores, as trials do.
    """
    return ThreadpoolController()


def predict_ends(
    points: Sequence[Point],
    reports: Reports,
    candidates: Sequence[Point],
    silent: Sequence[Point] = (),
    *,
    own: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the value of each candidate at the end of its budget.

    Args:
        points: points of the trials with reports.
        reports: their reports.
        candidates: points to predict.
        silent: points of running trials without a report.
        own: True if the candidates are the trials themselves, in their order, whose own curves
            then count too.
    """
    every = _similarity([*points, *candidates, *silent])
    ends = len(points) + np.arange(len(candidates))
    mean, deviation = _posterior(every, reports, ends, own=own)
    if not silent:
        return mean, deviation
    theirs = len(points) + len(candidates) + np.arange(len(silent))
    expected, _ = _posterior(every, reports, theirs)
    believed = Reports(
        np.concatenate([reports.trial, theirs]),
        np.concatenate([reports.time, np.ones(len(silent))]),
        np.concatenate([reports.value, expected]),
    )
    return _posterior(every, believed, ends, own=own)


def _posterior(
    similarity: np.ndarray, reports: Reports, ends: np.ndarray, *, own: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the ends of some points; see ``predict_ends``."""
    trial, time = reports.trial, reports.time
    same = trial[:, None] == trial[None]
    known = _covariance(similarity[np.ix_(trial, trial)], time, time, same)
    root = cholesky(known + NOISE**2 * np.eye(len(trial)), lower=True)
    itself = (np.arange(len(ends))[:, None] == trial[None]) & own
    cross = _covariance(similarity[np.ix_(ends, trial)], np.ones(len(ends)), time, itself)
    solved = solve_triangular(root, cross.T, lower=True)
    mean = solve_triangular(root, reports.value, lower=True) @ solved
    variance = 1 + OF_ALL**2 + OF_POINT**2 + OF_TRIAL**2 - (solved**2).sum(axis=0)
    return mean, np.sqrt(np.maximum(variance, 1e-9))


def _covariance(
    similarity: np.ndarray, time: np.ndarray, other: np.ndarray, same: np.ndarray
) -> np.ndarray:
    """Covariance of reports, given the similarity of their points and whether the trial is one."""
    near = np.exp(-np.abs(time[:, None] - other[None]) / CHANGE_TIME)
    left = 1 - np.maximum(time[:, None], other[None])
    of_point = OF_POINT**2 * similarity * (1 - CHANGE + CHANGE * near)
    return 1 + OF_ALL**2 * near + of_point + same * (OF_TRIAL**2 + ON_THE_WAY**2 * left)


def _similarity(points: Sequence[Point]) -> np.ndarray:
    """Matérn kernel (5/2) of points, with one length for numbers and one for choices.

    A number that a point does not have lies in the middle, so it means nothing; that it is missing
    shows in the choices that it depends on.
    """
    squared = np.zeros((len(points), len(points)))
    for kind in (True, False):
        columns = encode([_only(point, choices=kind) for point in points]).astype(float)
        if columns.shape[1] == 0:
            continue
        if not kind:
            columns[columns == ABSENT] = 0.5
        apart = cdist(columns, columns, "sqeuclidean")
        squared += apart / (LENGTH * apart.mean() or 1.0)
    far = np.sqrt(5 * squared)
    return (1 + far + far**2 / 3) * np.exp(-far)


def _only(point: Point, *, choices: bool) -> Point:
    """Choices of a point, or its numbers."""
    kept = {
        name: kind
        for name, kind in point.distributions.items()
        if isinstance(kind, CategoricalDistribution) == choices
    }
    return Point({name: point.params[name] for name in kept}, kept)


def read_reports(
    trials: Sequence[FrozenTrial], direction: StudyDirection, budget: int | None
) -> Reports:
    """Reports of trials, standardized; the last one of a failed trial is as bad as the worst.

    Args:
        trials: each with a value.
        direction: of the study.
        budget: step of the last report of a full trial; None for the highest step.
    """
    curves = [list(_curve(trial)) for trial in trials]
    last = budget or max(step for curve in curves for step, _ in curve)
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    index = np.repeat(np.arange(len(trials)), [len(curve) for curve in curves])
    steps = np.array([step for curve in curves for step, _ in curve], dtype=float)
    value = np.array([sign * value for curve in curves for _, value in curve])
    ends = np.cumsum([len(curve) for curve in curves]) - 1
    value[ends[[has_failed(trial) for trial in trials]]] = -np.inf
    return Reports(index, np.clip(steps / max(last, 1), 1e-3, 1.0), standardize(value))


def standardize(values: np.ndarray) -> np.ndarray:
    """Values with mean 0 and deviation 1; the lowest, and those that are no number, count equal."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(len(values))
    low = np.quantile(finite, LOW_QUANTILE)
    raised = np.where(np.isfinite(values), np.maximum(values, low), low)
    largest = np.abs(raised).max() or 1.0
    raised = raised / largest  # squares of large values would overflow
    deviation = raised.std()
    return (raised - raised.mean()) / (deviation if deviation > 1e-12 else 1.0)


def _curve(trial: FrozenTrial) -> Iterator[tuple[int, float]]:
    """Steps and values of a trial that are used; its value alone, at step 1, without a report."""
    steps = sorted(trial.intermediate_values)
    if not steps:
        yield 1, float(trial.value or 0.0)
        return
    spread = np.geomspace(1, len(steps), min(MAX_REPORTS_FITTED, len(steps)))
    for at in sorted({round(place) for place in spread}):
        yield steps[at - 1], trial.intermediate_values[steps[at - 1]]


def trials_to_fit(
    trials: Sequence[FrozenTrial], direction: StudyDirection, count: int
) -> list[FrozenTrial]:
    """Best half of ``count`` by last values, and an even spread over time of the others."""
    if len(trials) <= count:
        return list(trials)
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    values = np.array([sign * (last_value(trial) or 0.0) for trial in trials])
    order = np.argsort(-values, kind="stable")
    best, others = order[: count // 2], np.sort(order[count // 2 :])
    spread = others[np.linspace(0, len(others) - 1, count - len(best)).round().astype(int)]
    return [trials[i] for i in np.sort(np.concatenate([best, spread]))]


def has_failed(trial: FrozenTrial) -> bool:
    """True if a trial violates a constraint, as a collapse does."""
    return any(value > 0 for value in trial.constraints.values())


def last_value(trial: FrozenTrial) -> float | None:
    """Value of a completed trial, or the last one that a trial reported; None without any."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    return None if trial.last_step is None else trial.intermediate_values[trial.last_step]


def point_of(trial: FrozenTrial) -> Point:
    """Point of a trial."""
    return Point(trial.params, trial.distributions)
