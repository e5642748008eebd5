"""A study that is read from memory and written to its storage.

Optuna reads every trial that runs from the database again whenever it looks at a study, about nine
times for each one that TPE draws: with a hundred at a time, seconds a trial. The driver of a search
is the only one that changes its trials, so it need not read back what it wrote. What it writes is
in the storage at once, in the same order as without a mirror.
"""

from collections.abc import Container, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState


def mirrored(study: optuna.Study) -> optuna.Study:
    """The same study for its only writer; trials that others put in the queue are still seen."""
    return optuna.load_study(
        study_name=study.study_name,
        storage=_Mirror(study),
        sampler=study.sampler,
        pruner=study.pruner,
    )


class _Mirror(InMemoryStorage):
    """One study; every write goes to the storage behind it first."""

    def __init__(self, study: optuna.Study) -> None:
        super().__init__()
        self._back: BaseStorage = study._storage
        self._back_study = study._study_id
        self._back_trials: list[int] = []
        """Trials' ids in the storage, by their ids here."""
        self._study = super().create_new_study(study.directions, study.study_name)
        for name, value in self._back.get_study_system_attrs(self._back_study).items():
            super().set_study_system_attr(self._study, name, value)
        for name, value in self._back.get_study_user_attrs(self._back_study).items():
            super().set_study_user_attr(self._study, name, value)
        for trial in self._back.get_all_trials(self._back_study, deepcopy=False):
            self._add(trial)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        with self._lock:
            self._catch_up()
            back = self._back.create_new_trial(self._back_study, template_trial)
            return self._add(self._back.get_trial(back))

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if states == (TrialState.WAITING,):
            with self._lock:
                self._catch_up()
        return super().get_all_trials(study_id, deepcopy, states)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        back = self._back_trials[trial_id]
        self._back.set_trial_param(back, param_name, param_value_internal, distribution)
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        if not self._back.set_trial_state_values(self._back_trials[trial_id], state, values):
            return False  # another driver was faster
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        back = self._back_trials[trial_id]
        self._back.set_trial_intermediate_value(back, step, intermediate_value)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._back.set_trial_user_attr(self._back_trials[trial_id], key, value)
        super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._back.set_trial_system_attr(self._back_trials[trial_id], key, value)
        super().set_trial_system_attr(trial_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._back.set_study_system_attr(self._back_study, key, value)
        super().set_study_system_attr(study_id, key, value)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._back.set_study_user_attr(self._back_study, key, value)
        super().set_study_user_attr(study_id, key, value)

    def _catch_up(self) -> None:
        """Trials that others have put in the queue, from optuna-dashboard for example."""
        number = len(self._back_trials)
        try:
            self._back.get_trial_id_from_study_id_trial_number(self._back_study, number)
        except KeyError:
            return
        for trial in self._back.get_all_trials(self._back_study, deepcopy=False)[number:]:
            self._add(trial)

    def _add(self, trial: FrozenTrial) -> int:
        self._back_trials.append(trial._trial_id)
        added = super().create_new_trial(self._study, trial)
        assert added == trial.number == len(self._back_trials) - 1, (
            "one study, its numbers in order"
        )
        return added
