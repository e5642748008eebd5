"""Freeze-thaw: trials are paused and resumed by a Gaussian process over points and curves.

Source: Swersky, Snoek and Adams, Freeze-Thaw Bayesian Optimization, arXiv 2014, here with kernels
that are fixed, and with an upper bound where the paper has an entropy search. Values are higher
where they are better.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from optuna.distributions import CategoricalDistribution
from scipy.linalg import cholesky, solve_triangular
from scipy.spatial.distance import cdist

from hpsearch.search.space_points import ABSENT, Point, encode

EXPLORATION = 2.0
"""Standard deviations that are added to the mean of a candidate; 0 to 1 were worse where samplers
propose freely, and the same on rows."""
MARGIN = 0.1
"""Difference of upper bounds from which on a trial is paused for another one."""
SLICES = 40
"""Parts of the budget; a trial may be paused once in each."""
HOPE = 1.0
"""Standard deviations that are added to the mean of a trial that may become the best one, once no
trial may begin."""
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
PRIOR_VARIANCE = 1 + OF_ALL**2 + OF_POINT**2 + OF_TRIAL**2
"""Variance of the end of a trial that nothing is known about."""


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


def predict_ends(
    points: Sequence[Point],
    reports: Reports,
    candidates: Sequence[Point] = (),
    silent: Sequence[Point] = (),
    *,
    own: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the value of each candidate at the end of its budget.

    Args:
        points: points of the trials with reports.
        reports: their reports.
        candidates: points to predict.
        silent: points of running trials without a report, which count as if they had ended as
            predicted.
        own: True to predict the trials themselves before the candidates, each also by its own
            curve.
    """
    every = similarity([*points, *candidates, *silent])
    known, last = len(points), len(points) + len(candidates)
    ends = np.arange(0 if own else known, last)
    if silent:
        theirs = np.arange(last, len(every))
        expected, _ = _posterior(every, reports, theirs)
        reports = Reports(
            np.concatenate([reports.trial, theirs]),
            np.concatenate([reports.time, np.ones(len(silent))]),
            np.concatenate([reports.value, expected]),
        )
    return _posterior(every, reports, ends)


def _posterior(
    like: np.ndarray, reports: Reports, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the ends of some points; see ``predict_ends``."""
    trial, time = reports.trial, reports.time
    same = trial[:, None] == trial[None]
    known = covariance(like[np.ix_(trial, trial)], time, time, same)
    root = cholesky(known + NOISE**2 * np.eye(len(trial)), lower=True)
    itself = ends[:, None] == trial[None]
    cross = covariance(like[np.ix_(ends, trial)], np.ones(len(ends)), time, itself)
    solved = solve_triangular(root, cross.T, lower=True)
    mean = solve_triangular(root, reports.value, lower=True) @ solved
    variance = PRIOR_VARIANCE - (solved**2).sum(axis=0)
    return mean, np.sqrt(np.maximum(variance, 1e-9))


def covariance(
    like: np.ndarray, time: np.ndarray, other: np.ndarray, same: np.ndarray
) -> np.ndarray:
    """Covariance of reports, given the similarity of their points and whether the trial is one."""
    near = np.exp(-np.abs(time[:, None] - other[None]) / CHANGE_TIME)
    left = 1 - np.maximum(time[:, None], other[None])
    of_point = OF_POINT**2 * like * (1 - CHANGE + CHANGE * near)
    return 1 + OF_ALL**2 * near + of_point + same * (OF_TRIAL**2 + ON_THE_WAY**2 * left)


def similarity(points: Sequence[Point]) -> np.ndarray:
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


class Prediction(NamedTuple):
    """Predicted value at the end of the budget, standardized."""

    mean: float
    deviation: float
    """Standard deviation of the prediction."""

    @property
    def bound(self) -> float:
        """Upper bound of the value."""
        return self.mean + EXPLORATION * self.deviation


class Outlook(NamedTuple):
    """Predictions at one moment of a search."""

    point: Point
    """Point of the next new trial."""
    new: Prediction
    """End of that trial; of infinite value while points are drawn at random."""
    trials: Mapping[int, Prediction]
    """Ends of the trials that the process is fitted to, by number."""


def is_due(seen: int, before: int, *, first: int, budget: int) -> bool:
    """Return whether a report is one at which a trial may be paused.

    That is the first one from ``first`` patches on, and the first of each ``SLICES``-th part of the
    budget, so that the cost of the decisions does not grow with the number of reports.

    Args:
        seen: patches at the report.
        before: patches at the report before it; 0 if it is the first.
        first: patches that every trial sees before it may be paused.
        budget: patches of a full trial.
    """
    slices = [SLICES * patches // budget for patches in (before, seen)]
    return seen >= first and (before < first or slices[0] < slices[1])


NEW: Literal["new"] = "new"
"""Choice of a trial that has not begun."""
Trial = TypeVar("Trial", bound=Hashable)


def choose_trial(
    ends: Mapping[Trial, Prediction],
    *,
    new: float | None,
    best: float,
    current: Trial | None = None,
) -> Trial | Literal["new"] | None:
    """Choose the trial that a worker trains on: the one with the highest upper bound.

    Once no trial may begin, those are left that may still become the best one.

    Args:
        ends: predicted ends of the trials to choose from: the paused ones and the current one.
        new: upper bound of a trial that has not begun; None if none may begin.
        best: predicted end of the best trial that was trained to the end; minus infinity for none.
        current: trial that the worker trains now; another one is chosen only if its bound is higher
            by ``MARGIN``.

    Returns:
        The trial, ``NEW``, or None if no trial is worth training.
    """
    if new is None:
        ends = {trial: end for trial, end in ends.items() if end.mean + HOPE * end.deviation > best}
    bounds: dict[Trial | Literal["new"], float] = {} if new is None else {NEW: new}
    bounds |= {trial: end.bound for trial, end in ends.items()}
    if current in bounds:
        bounds[current] += MARGIN
    return max(bounds, key=lambda trial: bounds[trial], default=None)
