"""Optuna searcher for Ray Tune."""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from hpsearch.execution.checkpoint_store import inherit_checkpoint
from hpsearch.execution.worker_messages import (
    Reported,
    WorkerMessage,
    from_dict,
    message_outcome,
    objective_values,
)
from hpsearch.search.constraints import Constraint, trial_violations
from hpsearch.search.grid import config_key, distinct_points
from hpsearch.search.prior_sampler import with_beliefs
from hpsearch.search.requests import SearchRequests, continued_config
from hpsearch.search.samplers import build_sampler
from hpsearch.search.search import Search
from hpsearch.search.space_file import load_search
from hpsearch.search.stopping import FINISH_ORDER_ATTR, study_is_out_of_patience
from hpsearch.search.study import open_study_storage, running_trial, study_in, study_name
from hpsearch.search.study_journal import grouped_writes
from hpsearch.search.trial_queue import (
    PARENT_ATTR,
    POINT_ATTR,
    REPEAT_ATTR,
    REPEATED_ATTR,
    PlannedTrial,
    TrialQueue,
    drawn_point,
    format_trial_id,
    started_trials,
)

OUTCOME_ATTR = "outcome"
"""User attribute of an Optuna trial: its status at the end."""
MAX_REPEATS = 20
"""Draws in a row of known configurations after which a space that cannot be listed is exhausted."""


class OptunaSearcher(Searcher):
    """Tune searcher on an Optuna study, whose storage holds the whole state.

    Args:
        folder: of the search; its name is that of the study.
        space: file that defines the search.
        search: what the file exports, if it is loaded already.
        trials: number of trials to start in all.
        url: of the study's storage; None for a file in the folder.
        patience_offset: finished trials, from the first on, that patience does not count.
    """

    def __init__(
        self,
        folder: Path,
        *,
        space: Path,
        search: Search | None = None,
        trials: int,
        url: str | None = None,
        patience_offset: int = 0,
    ) -> None:
        self._folder, self._space, self._trials, self._url = folder, space, trials, url
        self._patience_offset = patience_offset
        self.requests: SearchRequests | None = None
        """Requests of users, whose points take the places of drawn ones."""
        self._running: dict[str, optuna.Trial] = {}
        self._last_steps: dict[str, int] = {}
        """Patches seen at the last report that the study holds, by Tune's trial id."""
        self._unfinished: list[int] = []
        self._numbers: dict[int, int] = {}
        """Numbers of the trials in the event log, by their numbers in the study."""
        self._known: dict[str, int] = {}
        """Number of the first trial in the study with each configuration and seed."""
        self._repeats = 0
        """Draws in a row that repeated a known configuration."""
        self._opened: tuple[Search, optuna.Study, TrialQueue] | None = None
        self._storage: BaseStorage | None = None
        self._search = search or load_search(space)
        super().__init__(metric="objective", mode=self._search.objective.mode)

    def __getstate__(self) -> dict[str, Any]:
        dropped = {"_search": None, "_opened": None, "_storage": None, "_running": {}}
        return {**self.__dict__, **dropped}

    def _open(self) -> tuple[Search, optuna.Study, TrialQueue]:
        if self._opened is None:
            search = self._search or load_search(self._space)
            self._storage = open_study_storage(self._folder, self._url)
            name = study_name(self._folder, self._storage, self._url)
            study = study_in(self._storage, name, search)
            trials = started_trials(study.get_trials(deepcopy=False))
            self._unfinished = [t.number for t in trials if t.state == TrialState.RUNNING]
            self._numbers = {trial.number: number for number, trial in enumerate(trials)}
            for trial in trials:
                if "config" in trial.user_attrs:
                    self._known.setdefault(config_key(trial.user_attrs["config"]), trial.number)
            queue = TrialQueue(search.planned_points, search.seeds_per_point, search.is_finite)
            self._opened = (search, study, queue)
        return self._opened

    def suggest(self, trial_id: str) -> Any:
        """Suggest the next configuration, as JSON; ``FINISHED`` after the last.

        Unfinished trials of an earlier session come first. None, on which Tune asks again later, if
        a running trial decides whether the search is out of patience.
        """
        self._open()
        with grouped_writes(self._storage):
            while True:
                trial = self._next_trial(trial_id)
                if trial is None or trial == Searcher.FINISHED:
                    return trial
                config = self._config_of(trial)
                if config is not None:
                    break
        self._running[trial_id] = trial
        number = self._numbers[trial.number]
        if PARENT_ATTR in trial.user_attrs:
            parent, trials = trial.user_attrs[PARENT_ATTR], self._folder / "trials"
            inherit_checkpoint(trials / parent, trials / format_trial_id(number))
        return {
            "trial": config,
            "number": number,
            "id": format_trial_id(number),
            "drawn": json.dumps(drawn_point(trial)),  # Tune would flatten a dict
        }

    def _next_trial(self, trial_id: str) -> Any:
        """Next trial, whose configuration may be a repeat; else as ``suggest``."""
        search, study, queue = self._open()
        if self._unfinished:
            return self._resume_trial(trial_id, self._unfinished.pop(0))
        trials = study.get_trials(deepcopy=False)
        queue.observe(trials)
        turn = self._planned(queue) if queue.num_started < self._trials else None
        if turn is None:
            return Searcher.FINISHED
        if study_is_out_of_patience(trials, search, patience_offset=self._patience_offset):
            return None if self._running else Searcher.FINISHED
        trial = self._ask_study(turn, queued=trials[-1:])
        self._numbers[trial.number] = queue.num_started
        return trial

    def _planned(self, queue: TrialQueue) -> PlannedTrial | None:
        """Next trial to start; after a repeat, an untried point if the space can be listed.

        Trials that are to be trained on come first, each with the point and repeat of its parent.
        """
        study = self._open()[1]
        turn = (self.requests and self.requests.next_continuation(study)) or queue.next()
        if turn is None or turn.params or turn.parent:
            return turn
        requested = self.requests and self.requests.untried_point(study)
        if requested is not None:
            return replace(turn, params=requested.params, request=requested.number)
        if not self._repeats:
            return turn
        if self._points is None:
            return turn if self._repeats < MAX_REPEATS else None
        untried = [point for config, point in self._points.items() if config not in self._known]
        if not untried:
            return None
        chosen = np.random.default_rng([self._open()[0].seed, turn.point]).integers(len(untried))
        return replace(turn, params=untried[chosen])

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """Constraints of the search."""
        return self._open()[0].limits

    def leave_to_others(self, is_held: Callable[[str], bool]) -> None:
        """Leave unfinished trials to the processes that hold them.

        Args:
            is_held: returns whether another process holds a trial, by its id.
        """
        self._open()
        self._unfinished = [
            number
            for number in self._unfinished
            if not is_held(format_trial_id(self._numbers[number]))
        ]

    @cached_property
    def _points(self) -> dict[str, dict[str, Any]] | None:
        """Points of the space by their configurations; None if they cannot be listed."""
        return distinct_points(self._open()[0].suggest_config)

    @property
    def is_exhausted(self) -> bool:
        """True if there are fewer different configurations than trials are wanted."""
        _, study, queue = self._open()
        queue.observe(study.get_trials(deepcopy=False))
        return queue.num_started < self._trials and self._planned(queue) is None

    def _ask_study(self, turn: PlannedTrial, *, queued: Sequence[FrozenTrial]) -> optuna.Trial:
        """Enqueue and ask, so that the storage has a trial's point from its first moment on."""
        study = self._sampler_for(turn.point)
        if not any(trial.state == TrialState.WAITING for trial in queued):
            study.enqueue_trial(dict(turn.params), user_attrs=turn.attributes)
        trial = study.ask()
        if POINT_ATTR not in trial.user_attrs:  # queued by the user
            for name, value in turn.attributes.items():
                trial.set_user_attr(name, value)
        return trial

    def _resume_trial(self, attempt_id: str, number: int) -> optuna.Trial:
        _, study, _ = self._open()
        assert self._storage is not None, "opened with the study"
        frozen = study.get_trials(deepcopy=False)[number]
        if frozen.last_step is not None:
            self._last_steps[attempt_id] = frozen.last_step
        trial = running_trial(study, self._storage, number)
        if POINT_ATTR not in frozen.user_attrs:  # its driver died between two writes
            trial.set_user_attr(POINT_ATTR, number)
            trial.set_user_attr(REPEAT_ATTR, 0)
        self._sampler_for(trial.user_attrs[POINT_ATTR])
        return trial

    def _sampler_for(self, point: int) -> optuna.Study:
        search, study, _ = self._open()
        inner = build_sampler(search, point=point, repeats=self._repeats)
        study.sampler = with_beliefs(inner, study, prior=search.prior, seed=(search.seed, point))
        return study

    def _config_of(self, trial: optuna.Trial) -> dict[str, Any] | None:
        """Return the stored configuration, or sample it where a driver died before it stored it.

        None if it repeats that of an earlier trial, seed included; the trial is then refused.
        """
        known = trial.user_attrs
        if "config" in known:
            return known["config"]
        search, study, _ = self._open()
        drawn = search.suggest_config(trial, repeat=known.get(REPEAT_ATTR, 0))
        if PARENT_ATTR in known:
            drawn = continued_config(study, known[PARENT_ATTR], search.budget)
        config = drawn.model_dump(mode="json")
        first = self._known.setdefault(config_key(config), trial.number)
        if first != trial.number:
            self._repeats += 1
            trial.set_user_attr(REPEATED_ATTR, first)
            study.tell(trial, state=TrialState.FAIL)
            return None
        self._repeats = 0
        trial.set_user_attr("seed", drawn.seed)
        trial.set_user_attr("config", config)
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record the report in a result of Tune."""
        message = from_dict(result)
        if isinstance(message, Reported):
            self.record_report(trial_id, message)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record how a trial ended, from its last result; Tune calls this by keyword."""
        message = None if error else from_dict(result)
        self.finish(trial_id, *(("failed", "") if error else message_outcome(message)), message)

    def record_report(self, trial_id: str, report: Reported) -> None:
        """Record an intermediate value at its patches seen.

        A trial that resumes from a checkpoint repeats its last report, and one that restarts from
        scratch repeats them all; the study keeps the first.
        """
        if trial_id not in self._running or self._open()[0].extra_objectives:
            return
        if report.seen > self._last_steps.get(trial_id, -1):
            self._running[trial_id].report(report.objective, report.seen)
            self._last_steps[trial_id] = report.seen

    def requeue(self, trial_id: str) -> None:
        """Suggest a trial again that has not ended; a second call changes nothing."""
        if trial_id in self._running:
            self._unfinished.append(self._running.pop(trial_id).number)

    def should_pause(self, trial_id: str) -> bool:
        """Return whether a worker leaves its trial for another one after a report; here never."""
        return False

    def pause(self, trial_id: str) -> None:
        """Set a trial aside, to suggest it again; a second call changes nothing."""
        self.requeue(trial_id)

    def release_paused(self, ids: Collection[str]) -> list[str]:
        """Forget paused trials that a user stopped, and return their ids; here there are none."""
        return []

    def finish(
        self, trial_id: str, status: str, reason: str, message: WorkerMessage | None
    ) -> None:
        """Record in the study how a trial ended; a second call changes nothing.

        Args:
            trial_id: Tune's.
            status: completed, infeasible, pruned, collapsed, diverged or failed.
            reason: in words.
            message: the last one of its worker.
        """
        if trial_id in self._running:
            self._open()
            with grouped_writes(self._storage):
                self._record_end(trial_id, status, reason, message)
            del self._running[trial_id]

    def _record_end(
        self, trial_id: str, status: str, reason: str, message: WorkerMessage | None
    ) -> None:
        search, study, queue = self._open()
        trial = self._running[trial_id]
        finished = queue.count_finished(study.get_trials(deepcopy=False))
        trial.set_user_attr(FINISH_ORDER_ATTR, 1 + finished)
        values = None if status == "failed" else objective_values(message, search)
        trial.set_user_attr("reason", reason)
        if values is None or not isinstance(message, Reported):
            trial.set_user_attr(OUTCOME_ATTR, "failed")
            study.tell(trial, state=TrialState.FAIL)
        else:
            self.record_report(trial_id, message)  # Tune withholds the one that stopped a trial
            trial.set_user_attr(OUTCOME_ATTR, status)
            for name, violation in trial_violations(status, message.metrics, search.limits).items():
                trial.set_constraint(name, violation)
            if status == "pruned":
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, values)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the storage of the study holds the whole state."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the storage of the study holds the whole state."""
