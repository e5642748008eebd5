"""Optuna's TPE at a price that does not grow with the search.

Optuna's own reads, ranks and models all finished trials once for each group of names that occur
together, so a draw after 2,000 trials costs five times as much as one after 250. Here they are
ranked once a draw, and of a long search it looks at a part. In a short one it draws what Optuna's
does, to the last bit.
"""

import heapq
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import (
    _get_infeasible_trial_score,
    _get_pruned_trial_score,
    _split_trials,
    default_gamma,
    default_gamma_multiobjective,
)
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.trial import FrozenTrial, TrialState

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
LOOKED_AT = 250
"""Trials of a search with one objective that the model is made of."""

Split = tuple[list[FrozenTrial], list[FrozenTrial]]
"""The good and the others, each by number."""


@dataclass
class Known:
    """The finished trials of one study, each read once."""

    looked_at: int = LOOKED_AT
    ranks: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """By number; as TPE ranks them, lower is better."""
    spaces: dict[frozenset[str], tuple[int, dict[str, BaseDistribution]]] = field(
        default_factory=dict
    )
    """For each set of names that occurs, the first trial that has it, and their distributions."""

    def note(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        """Read the trials that are new."""
        for trial in trials:
            if trial.number not in self.ranks:
                self.ranks[trial.number] = _rank(study, trial)
                names = frozenset(trial.distributions)
                first = self.spaces.get(names)
                if first is None or trial.number < first[0]:
                    self.spaces[names] = (trial.number, trial.distributions)

    def groups(self) -> _SearchSpaceGroup:
        """Names that occur together, in the order in which Optuna finds them.

        A set of names that has been split by once splits nothing the second time.
        """
        groups = _SearchSpaceGroup()
        for _, distributions in sorted(self.spaces.values(), key=lambda space: space[0]):
            groups.add_distributions(distributions)
        return groups

    def split(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> Split:
        """The best trials, and the others or a part of them that is spread evenly over time."""
        if study._is_multi_objective():
            return _split_trials(study, list(trials), default_gamma_multiobjective(len(trials)))
        good = default_gamma(len(trials))
        if len(trials) > self.looked_at:
            trials = self._shortened(trials, good)
        return _split_trials(study, list(trials), good)

    def _shortened(self, trials: Sequence[FrozenTrial], good: int) -> list[FrozenTrial]:
        best = heapq.nsmallest(good, trials, key=lambda trial: self.ranks[trial.number])
        chosen = {trial.number for trial in best}
        others = [trial for trial in trials if trial.number not in chosen]
        places = np.linspace(0, len(others) - 1, self.looked_at - good).round().astype(int)
        return sorted([*best, *(others[i] for i in places)], key=lambda trial: trial.number)


def _rank(study: optuna.Study, trial: FrozenTrial) -> tuple[float, ...]:
    """Completed trials before pruned ones before those that violate a constraint."""
    if study._is_multi_objective():
        return ()
    violation = _get_infeasible_trial_score(trial)
    if violation > 0:
        return (2, violation)
    if trial.state == TrialState.PRUNED:
        return (1, *_get_pruned_trial_score(trial, study))
    assert trial.value is not None, "a completed trial has a value"
    return (0, trial.value if study.direction.name == "MINIMIZE" else -trial.value)


class FrugalTPE(TPESampler):
    """Multivariate TPE over groups of names, without a liar.

    Args:
        seed: of the draws.
        known: the finished trials that were read before; of the same study.
    """

    def __init__(self, *, seed: int, known: Known, n_startup_trials: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of group
            super().__init__(
                seed=seed,
                multivariate=True,
                group=True,
                n_startup_trials=n_startup_trials,
                constant_liar=False,
            )
        self._known = known
        self._looked: tuple[int, int, Split] | None = None
        """The trial that is drawn, how many have finished, and which of them are good."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All names that a finished trial had."""
        self._look(study, trial)
        self._search_space_group = self._known.groups()
        spaces = self._search_space_group.search_spaces
        return {n: d for space in spaces for n, d in sorted(space.items()) if not d.single()}

    def _sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space or self._look(study, trial)[0] < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A name that no finished trial had."""
        if self._look(study, trial)[0] < self._n_startup_trials:
            return self._random_sampler.sample_independent(
                study, trial, param_name, param_distribution
            )
        return self._sample(study, trial, {param_name: param_distribution})[param_name]

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        good, others = self._look(study, trial)[1]
        likely = self._build_parzen_estimator(study, search_space, good, handle_below=True)
        unlikely = self._build_parzen_estimator(study, search_space, others, handle_below=False)
        samples = likely.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(samples, self._compute_acquisition_func(samples, likely, unlikely))
        return {name: kind.to_external_repr(best[name]) for name, kind in search_space.items()}

    def _look(self, study: optuna.Study, trial: FrozenTrial) -> tuple[int, Split]:
        """How many trials have finished, and which are good: once for each trial."""
        if self._looked is None or self._looked[0] != trial.number:
            trials = study._get_trials(deepcopy=False, states=FINISHED, use_cache=True)
            self._known.note(study, trials)
            self._looked = (trial.number, len(trials), self._known.split(study, trials))
        return self._looked[1:]
