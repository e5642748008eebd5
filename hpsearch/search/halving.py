"""Successive halving: trials are compared at rungs, and few of them train on.

The step of a report is the number of patches that its trial has seen. Trials overshoot a step by
up to a batch, so a rung uses the first report at or beyond it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

TRAINS_ON_ATTR = "trains_on"
"""User attribute of a trial that trains another one on: number of that trial."""


def rung_steps(grace_period: float, *, budget: float, reduction_factor: float) -> tuple[float, ...]:
    """Steps (patches) at which trials are compared, from the grace period to below the budget."""
    found = []
    while grace_period < budget:
        found.append(grace_period)
        grace_period *= reduction_factor
    return tuple(found)


@dataclass
class _Rung:
    """Values at a rung of the trials of a study that have ended, by number."""

    study: optuna.Study
    finished: dict[int, float] = field(default_factory=dict)
    unfinished: list[int] = field(default_factory=list)
    """Numbers of the trials that may still report."""
    count: int = 0
    """Trials of the study that were looked at."""
    trained_on: set[int] = field(default_factory=set)
    """Numbers of the trials that others train on, and which these stand for."""


@dataclass
class SuccessiveHalving(BasePruner):
    """Asynchronous successive halving, with any reduction factor above 1.

    A trial is pruned at a rung if its value is below the percentile of those that reached it
    earlier, as in Ray's ``AsyncHyperBandScheduler``. Optuna's ``SuccessiveHalvingPruner`` counts
    the trial itself among them, so that of the first three only a new best one continues; in
    replays of recorded searches it more often missed the best configuration.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.

    Args:
        rungs: patches seen, ascending.
        reduction_factor: above 1; the best 1/reduction_factor of trials continue.
    """

    rungs: tuple[float, ...]
    reduction_factor: float
    _rungs: dict[int, "_Rung"] = field(default_factory=dict, repr=False, compare=False)

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Decide at the highest rung that the trial has reached, if it is new there."""
        rung = self.new_rung(trial)
        return rung is not None and self.is_below(study, trial, rung)

    def new_rung(self, trial: FrozenTrial) -> int | None:
        """Index of the rung that the trial has reached by its last report; None for no new one."""
        step = trial.last_step
        if step is None or step < self.rungs[0]:
            return None
        rung = max(i for i, reached in enumerate(self.rungs) if reached <= step)
        return rung if self.step_at(trial, rung) == step else None

    def step_at(self, trial: FrozenTrial, rung: int) -> int | None:
        """Step of a trial's first report at a rung."""
        return _first_between(trial, *(*self.rungs, float("inf"))[rung : rung + 2])

    def values_at(self, study: optuna.Study, rung: int) -> dict[int, float]:
        """Values of all trials that have reported at a rung, higher is better, by number.

        Trials that have ended are looked at once, so that a search of many costs no more a trial.
        """
        known = self._rungs.get(rung)
        if known is None or known.study is not study:
            known = self._rungs[rung] = _Rung(study)
        sign, trials = direction_sign(study), study.get_trials(deepcopy=False)
        known.unfinished.extend(range(known.count, len(trials)))
        known.count = len(trials)
        values = dict(known.finished)
        for number in known.unfinished:
            trial = trials[number]
            step = self.step_at(trial, rung)
            if step is None:
                continue
            values[number] = sign * trial.intermediate_values[step]
            if (parent := trial.user_attrs.get(TRAINS_ON_ATTR)) is not None:
                known.trained_on.add(parent)
            if trial.state.is_finished():
                known.finished[number] = values[number]
        known.unfinished = [n for n in known.unfinished if not trials[n].state.is_finished()]
        return {n: value for n, value in sorted(values.items()) if n not in known.trained_on}

    def is_below(self, study: optuna.Study, trial: FrozenTrial, rung: int) -> bool:
        """True if a trial is below the percentile of the others at a rung."""
        values = self.values_at(study, rung)
        own = values.pop(trial.number)
        quantile = 100 * (1 - 1 / self.reduction_factor)
        return bool(values) and bool(own < np.percentile(list(values.values()), quantile))


@dataclass
class ProgressiveHalving(SuccessiveHalving):
    """ASHA up to a highest rung, which rises while the best trials change places.

    The order of the trials at the highest rung is compared with their order at the rung below it.
    Trials may change places with those that are no further away than the noise, as estimated from
    pairs of curves that cross at least twice. If others do, the highest rung rises by one. Of the
    trials that reach it, a new best one is trained to the end, so that a search has a winner
    without a second phase; the others are pruned.

    Source: Bohdal et al., PASHA, ICLR 2023, where all of them pause there, and the best one is
    trained to the end when the search is over.
    """

    highest: int = 1
    """Index of the highest rung to which trials are trained as in ASHA."""

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Decide at the highest rung that the trial has reached, if it is new there."""
        rung = self.new_rung(trial)
        if rung is None or self.is_below(study, trial, rung):
            return rung is not None
        while self.highest < len(self.rungs) and not self._is_settled(study):
            self.highest += 1
        if rung < self.highest:
            return False
        values = self.values_at(study, rung)
        return values[trial.number] < max(values.values())

    def _is_settled(self, study: optuna.Study) -> bool:
        """True if the trials at the highest rung have the order that they had at the rung below."""
        above = self.values_at(study, self.highest)
        below = self.values_at(study, self.highest - 1)
        both = sorted(above.keys() & below.keys(), key=lambda number: -above[number])
        if len(both) < 2:
            return True
        curves = [study.get_trials(deepcopy=False)[number].intermediate_values for number in both]
        noise = crossing_noise([list(curve.values()) for curve in curves])
        places = sorted((below[number] for number in both), reverse=True)
        return all(
            abs(below[number] - place) <= noise for number, place in zip(both, places, strict=True)
        )


def crossing_noise(curves: Sequence[Sequence[float]]) -> float:
    """Distance that does not decide an order: the 90th percentile of that of crossing pairs.

    Args:
        curves: values of each trial, report by report.

    Returns:
        Percentile over the pairs that change their order at least twice, of their last distance in
        the reports that both have; 0 if there is no such pair.
    """
    distances = []
    for first, second in combinations(curves, 2):
        apart = [a - b for a, b in zip(first, second, strict=False)]
        order = [difference > 0 for difference in apart if difference != 0]
        if sum(before != after for before, after in pairwise(order)) >= 2:
            distances.append(abs(apart[-1]))
    return float(np.percentile(distances, 90)) if distances else 0.0


def _first_between(trial: FrozenTrial, low: float, high: float) -> int | None:
    """Step of the first report from ``low`` on and before ``high``."""
    return min((step for step in trial.intermediate_values if low <= step < high), default=None)


def direction_sign(study: optuna.Study) -> int:
    """1 if the study is maximized, else -1."""
    return 1 if study.direction == StudyDirection.MAXIMIZE else -1
