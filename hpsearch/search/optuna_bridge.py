"""Between Optuna, which samples, and Ray Tune, which schedules.

The study's storage is the truth. A trial that was stopped early is told as PRUNED with its
intermediate values, a collapsed or diverged one as COMPLETE with the worst value and a violated
constraint (so the sampler learns to stay away), a failed one as FAIL. Ray's own bridge tells Optuna
that a trial stopped at 5 % of its budget is complete, and breaks when it resumes with a storage.

A trial is known by its number in the study. A search that goes on after its driver died hands out
the trials that still run in the study first, so it needs nothing that Tune remembers.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from hpsearch.search.outcome import FAILURES, outcome
from hpsearch.search.search import Search, load_search

OUTCOME = "outcome"
"""User attribute of an Optuna trial: how it ended, in our words."""


def study_storage(folder: Path) -> str:
    """Where a search keeps its study; optuna-dashboard opens this URL."""
    return f"sqlite:///{folder / 'study.db'}"


def open_study(folder: Path, *, search: Search, sampler: Any = None) -> optuna.Study:
    """The study of a search, made if need be."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=study_storage(folder),
        study_name=folder.name,
        sampler=sampler or build_sampler(search),
        pruner=optuna.pruners.NopPruner(),  # Ray's scheduler decides who is stopped
        direction=search.objective.direction,
        load_if_exists=True,
    )


def build_sampler(search: Search, *, number: int = 0) -> optuna.samplers.BaseSampler:
    """The sampler by name, seeded for the trial ``number``.

    Each trial has a stream of its own, so a search that was killed draws as one that was not.
    """
    seed = int(np.random.SeedSequence(search.seed, spawn_key=(number,)).generate_state(1)[0])
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # group: in a conditional space, names that occur together are modelled together
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=6
        )


class StudySearch(Searcher):
    """Ray's view of an Optuna study; it keeps nothing that the study's storage does not know."""

    def __init__(self, folder: Path, *, space: Path, trials: int) -> None:
        self._folder, self._space, self._trials = folder, space, trials
        self._running: dict[str, optuna.Trial] = {}
        self._unfinished: list[int] = []
        self._opened: tuple[Search, optuna.Study] | None = None
        objective = load_search(space).objective
        super().__init__(metric="objective", mode=objective.mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_running": {}}

    def _open(self) -> tuple[Search, optuna.Study]:
        if self._opened is None:
            search = load_search(self._space)
            study = open_study(self._folder, search=search)
            if not study.get_trials(deepcopy=False):
                for point in search.first:
                    study.enqueue_trial(dict(point))
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            self._unfinished = [trial.number for trial in running]
            self._opened = (search, study)
        return self._opened

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, as JSON; Tune's word for the end after the last.

        First come the trials of an earlier session that did not end.
        """
        self._open()
        if self._unfinished:
            trial = self._again(self._unfinished.pop(0))
        elif self._asked() < self._trials:
            trial = self._ask()
        else:
            return Searcher.FINISHED
        self._running[trial_id] = trial
        config = self._config(trial)
        return {"trial": config, "number": trial.number, "id": trial_name(trial.number)}

    def _asked(self) -> int:
        trials = self._open()[1].get_trials(deepcopy=False)
        return sum(trial.state != TrialState.WAITING for trial in trials)

    def _ask(self) -> optuna.Trial:
        search, study = self._open()
        study.sampler = build_sampler(search, number=self._asked())
        return study.ask()

    def _again(self, number: int) -> optuna.Trial:
        search, study = self._open()
        study.sampler = build_sampler(search, number=number)
        return optuna.Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)

    def _config(self, trial: optuna.Trial) -> dict[str, Any]:
        """What a trial was drawn as; a driver that died while it drew has not written it."""
        if "config" not in trial.user_attrs:
            config = self._open()[0].draw(trial).model_dump(mode="json")
            trial.set_user_attr("config", config)
        return trial.user_attrs["config"]

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record an intermediate value at its patches seen."""
        trial, frozen = self._running[trial_id], self._frozen(trial_id)
        seen = int(result["seen"])
        if frozen.state == TrialState.RUNNING and seen not in frozen.intermediate_values:
            trial.report(float(result["objective"]), seen)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how a trial ended; Tune calls by keyword."""
        if self._frozen(trial_id).state.is_finished():
            return
        study, trial = self._open()[1], self._running[trial_id]
        if error or not result or "objective" not in result:
            trial.set_user_attr(OUTCOME, "failed")
            study.tell(trial, state=TrialState.FAIL)
            return
        self.on_trial_result(trial_id, result)  # Tune withholds the result that stopped a trial
        status, reason = outcome(result)
        trial.set_user_attr(OUTCOME, status)
        trial.set_user_attr("reason", reason)
        trial.set_constraint("collapsed", 1.0 if status in FAILURES else 0.0)  # above 0 violates
        if status == "pruned":
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, float(result["objective"]))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the storage has it all."""

    def _frozen(self, trial_id: str) -> optuna.trial.FrozenTrial:
        return self._open()[1].get_trials(deepcopy=False)[self._running[trial_id].number]


def trial_name(number: int) -> str:
    """What a trial is called in the ledger and on disk."""
    return f"{number:03d}"
