"""Between Optuna, which samples, and Ray Tune, which schedules.

The study's storage is the truth. A trial that was stopped early is told as PRUNED with its
intermediate values, a collapsed or diverged one as COMPLETE with the worst value and a violated
constraint (so the sampler learns to stay away), a failed one as FAIL. Ray's own bridge tells Optuna
that a trial stopped at 5 % of its budget is complete, and breaks when it resumes with a storage.
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

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


def build_sampler(search: Search) -> optuna.samplers.BaseSampler:
    """The sampler by name, seeded."""
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=search.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # group: in a conditional space, names that occur together are modelled together
        return optuna.samplers.TPESampler(
            seed=search.seed, multivariate=True, group=True, n_startup_trials=6
        )


class StudySearch(Searcher):
    """Ray's view of an Optuna study; it keeps nothing that the study's storage does not know."""

    def __init__(self, folder: Path, *, space: Path, trials: int) -> None:
        self._folder, self._space, self._trials = folder, space, trials
        self._known: dict[str, int] = {}
        self._sampler: Any = None
        self._opened: tuple[Search, optuna.Study] | None = None
        objective = load_search(space).objective
        super().__init__(metric="objective", mode=objective.mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _open(self) -> tuple[Search, optuna.Study]:
        if self._opened is None:
            search = load_search(self._space)
            study = open_study(self._folder, search=search, sampler=self._sampler)
            if not study.get_trials(deepcopy=False):
                for point in search.first:
                    study.enqueue_trial(dict(point))
            self._opened = (search, study)
        return self._opened

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration, as JSON; Tune's word for the end after the last.

        The study counts, not Tune, which after the driver died may have forgotten some.
        """
        search, study = self._open()
        if sum(map(_counts, study.get_trials(deepcopy=False))) >= self._trials:
            return Searcher.FINISHED
        trial = study.ask()
        trial.set_user_attr("ray_trial_id", trial_id)
        config = search.draw(trial).model_dump(mode="json")
        trial.set_user_attr("config", config)
        self._known[trial_id] = trial.number
        return {"trial": config, "number": trial.number}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record an intermediate value at its patches seen."""
        frozen = self._frozen(trial_id)
        seen = int(result["seen"])
        if frozen.state == TrialState.RUNNING and seen not in frozen.intermediate_values:
            self._live(frozen).report(float(result["objective"]), seen)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how a trial ended; Tune calls by keyword, and again after a resume."""
        frozen = self._frozen(trial_id)
        if frozen.state.is_finished():
            return
        study = self._open()[1]
        trial = self._live(frozen)
        if error or not result or "objective" not in result:
            trial.set_user_attr(OUTCOME, "failed")
            study.tell(frozen.number, state=TrialState.FAIL)
            return
        self.on_trial_result(trial_id, result)  # Tune withholds the result that stopped a trial
        status, reason = outcome(result)
        trial.set_user_attr(OUTCOME, status)
        trial.set_user_attr("reason", reason)
        trial.set_constraint("collapsed", 1.0 if status in FAILURES else 0.0)  # above 0 violates
        if status == "pruned":
            study.tell(frozen.number, state=TrialState.PRUNED)
        else:
            study.tell(frozen.number, float(result["objective"]))

    def save(self, checkpoint_path: str) -> None:
        """Write what the storage does not hold: Ray's ids and the sampler's random state."""
        state = {"known": self._known, "sampler": self._open()[1].sampler}
        Path(checkpoint_path).write_bytes(pickle.dumps(state))

    def restore(self, checkpoint_path: str) -> None:
        """Go on after the driver died; trials that Tune has forgotten are told as FAIL."""
        state = pickle.loads(Path(checkpoint_path).read_bytes())
        self._known, self._sampler, self._opened = state["known"], state["sampler"], None
        _, study = self._open()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("ray_trial_id") not in self._known:
                self._live(trial).set_user_attr(OUTCOME, "interrupted")
                study.tell(trial.number, state=TrialState.FAIL)

    def _frozen(self, trial_id: str) -> optuna.trial.FrozenTrial:
        return self._open()[1].get_trials(deepcopy=False)[self._known[trial_id]]

    def _live(self, frozen: optuna.trial.FrozenTrial) -> optuna.Trial:
        return optuna.Trial(self._open()[1], frozen._trial_id)


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for: begun, and not forgotten by Tune."""
    return trial.state != TrialState.WAITING and trial.user_attrs.get(OUTCOME) != "interrupted"
