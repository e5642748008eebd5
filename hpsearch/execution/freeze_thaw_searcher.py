"""Searcher that pauses trials and resumes them, for pruner ``FreezeThaw()``."""

from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.execution.worker_messages import Reported, WorkerMessage
from hpsearch.search.freeze_thaw import NEW, Outlook, choose_trial, is_due
from hpsearch.search.gp_sampler import GPSampler, has_failed
from hpsearch.search.samplers import build_sampler
from hpsearch.search.search import Search
from hpsearch.search.stopping import study_is_out_of_patience
from hpsearch.search.trial_queue import WARM_START_ATTR, TrialQueue, format_trial_id


class FreezeThawSearcher(OptunaSearcher):
    """Searcher that lets a free worker continue with the most promising trial.

    A paused trial stays RUNNING in the study. Trials that were interrupted come first, then points
    that a user asked for and further seeds of a point; else a paused trial or a new one follows,
    whichever has the highest upper bound. So a trial at a report is paused if another is due.

    Args:
        paused: ids of the trials that are paused by the event log.
        settings: those of ``OptunaSearcher``.
    """

    def __init__(self, *args: Any, paused: Collection[str] = (), **settings: Any) -> None:
        self._paused_before = frozenset(paused)
        self._paused: set[int] = set()
        """Numbers of paused trials in the study."""
        self._decided: dict[str, int] = {}
        """Patches at the latest decision about an attempt, by Tune's trial id."""
        self._is_idle = False
        """True if no trial was worth training, and nothing has happened since."""
        super().__init__(*args, **settings)

    def _open(self) -> tuple[Search, optuna.Study, TrialQueue]:
        is_first, opened = self._opened is None, super()._open()
        if is_first:
            ids = {number: format_trial_id(own) for number, own in self._numbers.items()}
            self._paused = {n for n in self._unfinished if ids[n] in self._paused_before}
            self._unfinished = [n for n in self._unfinished if n not in self._paused]
        return opened

    def record_report(self, trial_id: str, report: Reported) -> None:
        """Record an intermediate value, after which another trial may be worth training."""
        self._is_idle = False
        super().record_report(trial_id, report)

    def finish(
        self, trial_id: str, status: str, reason: str, message: WorkerMessage | None
    ) -> None:
        """Record how a trial ended, after which another one may be worth training."""
        self._is_idle = False
        super().finish(trial_id, status, reason, message)

    def should_pause(self, trial_id: str) -> bool:
        """Decide after a report of a trial whether its worker continues with another one.

        A trial that resumes from its checkpoint repeats its last report, which decides nothing.
        """
        search, study, _ = self._open()
        trial = self._running.get(trial_id)
        if trial is None:
            return False
        *earlier, seen = sorted(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        if seen <= self._decided.get(trial_id, -1):
            return False
        self._decided[trial_id] = seen
        before = earlier[-1] if earlier else 0
        if not is_due(seen, before, first=search.grace_patches, budget=search.budget):
            return False
        return self._choose(current=trial.number) != trial.number

    def pause(self, trial_id: str) -> None:
        """Set a trial aside, from which ``suggest`` may resume; a second call changes nothing."""
        if trial_id in self._running:
            self._paused.add(self._running.pop(trial_id).number)
            self._is_idle = False

    def release_paused(self, ids: Collection[str]) -> list[str]:
        """Forget paused trials that a user stopped.

        Args:
            ids: ids of all trials that a user stopped.

        Returns:
            Ids of those among them that were paused.
        """
        self._open()
        stopped = {n: format_trial_id(self._numbers[n]) for n in sorted(self._paused)}
        stopped = {number: name for number, name in stopped.items() if name in ids}
        self._paused -= stopped.keys()
        return list(stopped.values())

    def _next_trial(self, trial_id: str) -> Any:
        self._open()
        asks = self._paused and not self._unfinished and not self._is_idle
        chosen = self._choose() if asks else None
        if not isinstance(chosen, int):
            self._is_idle |= bool(asks) and chosen is None  # Tune asks many times a second
            return super()._next_trial(trial_id)
        self._paused.remove(chosen)
        return self._resume_trial(trial_id, chosen)

    def _resume_trial(self, attempt_id: str, number: int) -> optuna.Trial:
        trial = super()._resume_trial(attempt_id, number)
        self._decided[attempt_id] = self._last_steps.get(attempt_id, -1)
        return trial

    def _choose(self, current: int | None = None) -> int | Literal["new"] | None:
        """Number of the paused or current trial to train on, ``NEW``, or None for no trial."""
        search, study, queue = self._open()
        trials = study.get_trials(deepcopy=False)
        queue.observe(trials)
        turn = self._planned(queue) if self._may_begin(queue, trials) else None
        if turn is not None and (turn.params or turn.parent):
            return NEW
        known = self._paused if current is None else self._paused | {current}
        sampler = build_sampler(search, point=0 if turn is None else turn.point)
        assert isinstance(sampler, GPSampler), "the search was checked"
        outlook = sampler.outlook(study, kept=known - self._paused)
        return choose_trial(
            {number: outlook.trials[number] for number in sorted(known & outlook.trials.keys())},
            new=None if turn is None else outlook.new.bound,
            best=_best_end(trials, outlook),
            current=current,
        )

    def _may_begin(self, queue: TrialQueue, trials: Sequence[FrozenTrial]) -> bool:
        search, offset = self._open()[0], self._patience_offset
        return queue.num_started < self._trials and not study_is_out_of_patience(
            trials, search, patience_offset=offset
        )


def _best_end(trials: Sequence[FrozenTrial], outlook: Outlook) -> float:
    """Predicted end of the best trial of this search that was trained to the end."""
    ended = (
        end.mean
        for number, end in outlook.trials.items()
        if trials[number].state == TrialState.COMPLETE
        and WARM_START_ATTR not in trials[number].user_attrs
        and not has_failed(trials[number])
    )
    return max(ended, default=-np.inf)
