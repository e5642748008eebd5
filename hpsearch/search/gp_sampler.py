"""Sampler with a Gaussian process over learning curves: reads every report of every trial."""

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import ThreadpoolController

from hpsearch.search.freeze_thaw import (
    Outlook,
    Prediction,
    Reports,
    predict_ends,
    standardize,
)
from hpsearch.search.space_points import Point, Suggest, draw_neighbor, draw_point

STARTUP_TRIALS = 8
"""Trials with a report before the process is fitted; points are random until then."""
CANDIDATES = 180
NEIGHBORS = 90
"""Candidates near the best trials, among all candidates of a point."""
BEST_POINTS = 5
"""Trials with the highest predicted final values, whose neighbors are candidates."""
MAX_TRIALS_FITTED = 100
MAX_REPORTS_FITTED = 4
"""Reports of a trial that are used: the first, the last, and a spread between them."""


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
            self._chosen = (trial.number, self.outlook(study, asked=trial.number).point)
        return self._chosen[1]

    def outlook(
        self, study: optuna.Study, *, asked: int | None = None, kept: Collection[int] = ()
    ) -> Outlook:
        """Choose the next point, and predict the ends of the trials so far.

        Args:
            study: the study.
            asked: number of the trial that the point is for; None if there is none yet.
            kept: numbers of trials that are predicted however many there are.
        """
        with _libraries().limit(limits=1, user_api="blas"):
            return self._outlook(study, asked, kept)

    def _outlook(self, study: optuna.Study, asked: int | None, kept: Collection[int]) -> Outlook:
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        others = [
            other
            for other in study.get_trials(deepcopy=False, states=states)
            if other.number != asked and other.params
        ]
        reported = [other for other in others if last_value(other) is not None]
        at_random = len(reported) < self._startup
        if not reported:
            return self._random_outlook()
        running = (other for other in others if other.state == TrialState.RUNNING)
        silent = [point_of(other) for other in running if last_value(other) is None]
        fitted = trials_to_fit(reported, study.direction, MAX_TRIALS_FITTED, kept)
        reports = read_reports(fitted, study.direction, self._budget)
        points = [point_of(other) for other in fitted]
        candidates = [] if at_random else self._candidates(points, reports)
        mean, deviation = predict_ends(points, reports, candidates, silent, own=True)
        ends = [Prediction(*map(float, end)) for end in zip(mean, deviation, strict=True)]
        known = {trial.number: end for trial, end in zip(fitted, ends, strict=False)}
        if not candidates:
            return self._random_outlook()._replace(trials=known)
        best = max(range(len(candidates)), key=lambda i: ends[len(points) + i].bound)
        return Outlook(candidates[best], ends[len(points) + best], known)

    def _random_outlook(self) -> Outlook:
        point = draw_point(self._suggest, self._rng) or Point({}, {})
        return Outlook(point, Prediction(np.inf, 0.0), {})

    def _candidates(self, points: Sequence[Point], reports: Reports) -> list[Point]:
        """Points at random and near the best trials; none if the space cannot be drawn alone."""
        drawn = (draw_point(self._suggest, self._rng) for _ in range(CANDIDATES - NEIGHBORS))
        found = [point for point in drawn if point is not None]
        return found + self._neighbors(points, reports) if found else []

    def _neighbors(self, points: Sequence[Point], reports: Reports) -> list[Point]:
        """Points near the trials with the highest predicted values."""
        mean, _ = predict_ends(points, reports, own=True)
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
    trials: Sequence[FrozenTrial],
    direction: StudyDirection,
    count: int,
    kept: Collection[int] = (),
) -> list[FrozenTrial]:
    """Best half of ``count`` by last values, and an even spread over time of the others.

    Trials whose numbers are in ``kept`` are added.
    """
    sign = 1 if direction == StudyDirection.MAXIMIZE else -1
    return best_and_spread(
        trials, lambda trial: -sign * (last_value(trial) or 0.0), count // 2, count, kept
    )


def best_and_spread(
    trials: Sequence[FrozenTrial],
    rank: Callable[[FrozenTrial], Any],
    best: int,
    count: int,
    kept: Collection[int] = (),
) -> list[FrozenTrial]:
    """Select the best trials and an even spread over time of the others, in their order.

    Args:
        trials: in the order of their numbers.
        rank: lower is better; of equal trials the first is better.
        best: number of the best ones.
        count: number of all.
        kept: numbers of trials that are selected as well.
    """
    if len(trials) <= count:
        return list(trials)
    order = heapq.nsmallest(best, range(len(trials)), key=lambda i: (rank(trials[i]), i))
    others = sorted(set(range(len(trials))) - set(order))
    spread = np.linspace(0, len(others) - 1, count - len(order)).round().astype(int)
    chosen = {*order, *(others[i] for i in spread)}
    return [trial for i, trial in enumerate(trials) if i in chosen or trial.number in kept]


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
