"""Hooks of Ray Tune: each passes its event on to the trial supervisor."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from hpsearch.execution.ray_patches import actor_of
from hpsearch.execution.trial_supervisor import TrialSupervisor
from hpsearch.execution.worker_messages import decode_config, encode_config, from_dict
from hpsearch.search.resources import Node
from hpsearch.search.stopping import UsageTracker

REQUESTS_POLL_S = 0.5
"""Seconds between two readings of the requests of users."""
HANG_POLL_S = 1.0
"""Seconds between two looks for trials that hang."""
NODE_POLL_S = 5.0
"""Seconds between two looks at the nodes of the cluster."""


class ResourceAwareSearcher(Searcher):
    """Searcher that suggests a trial only when there are resources for it, and which ones.

    Tune fixes the resources of a trial when it creates it, and knows no "a GPU or a TPU"; so they
    are chosen here, and not by the sampler.

    Args:
        supervisor: of the trials.
        list_nodes: returns the nodes of the cluster; None if they never change.
    """

    def __init__(
        self, supervisor: TrialSupervisor, list_nodes: Callable[[], Sequence[Node]] | None = None
    ) -> None:
        searcher = supervisor.searcher
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self.supervisor, self._list_nodes = supervisor, list_nodes
        self._polled_at = time.monotonic()
        self.exhausted = False
        """True if the study has no more trials to start."""

    def suggest(self, trial_id: str) -> Any:
        """Suggest the next trial with its resources; None while none are free."""
        supervisor, allocator = self.supervisor, self.supervisor.allocator
        if supervisor.is_paused:
            supervisor.poll_requests()  # Tune calls nothing else while no trial runs
            if supervisor.shutdown.requested and not allocator.has_running:
                return Searcher.FINISHED
        if self._list_nodes is not None and time.monotonic() - self._polled_at > NODE_POLL_S:
            allocator.update_nodes(self._list_nodes())
            self._polled_at = time.monotonic()
        waits = supervisor.shutdown.in_progress or supervisor.is_paused
        allocation = None if waits else allocator.acquire(trial_id)
        if allocation is None:
            return None
        suggested = supervisor.searcher.suggest(trial_id)
        if isinstance(suggested, dict):
            config = {**suggested, "place": allocation.model_dump()}
            supervisor.register(trial_id, config)
            return encode_config(config)
        allocator.release(trial_id)
        if suggested == Searcher.FINISHED and allocator.has_running:
            return None  # one of the running trials may have to be retried
        self.exhausted = suggested == Searcher.FINISHED
        return suggested

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on a message of a worker."""
        self.supervisor.report(trial_id, from_dict(result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass on the end or the failure of a trial."""
        if error:
            self.supervisor.fail(trial_id)
        else:
            self.supervisor.complete(trial_id, from_dict(result))

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the storage of the study holds the whole state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the storage of the study holds the whole state."""


class PruningScheduler(FIFOScheduler):
    """Scheduler that stops trials as the supervisor decides."""

    def __init__(self, supervisor: TrialSupervisor) -> None:
        super().__init__()
        self._supervisor = supervisor
        self._pending: deque[TuneTrial] = deque()
        """Trials that may wait for a worker, in the order in which they were added."""

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Register an attempt, with the place where Tune will write its error."""
        register(self._supervisor, trial)
        self._pending.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Choose the first trial that waits, without a look at all trials of the search.

        No trial is ever paused, and one that has started never waits again.
        """
        while self._pending and self._pending[0].status != TuneTrial.PENDING:
            self._pending.popleft()
        return self._pending[0] if self._pending else None

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict) -> str:
        """Decide after a report whether a trial continues."""
        stop = self._supervisor.report(trial.trial_id, from_dict(result))
        return self.STOP if stop else self.CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict) -> None:
        """Pass on the end of a trial."""
        self._supervisor.complete(trial.trial_id, from_dict(result))

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Pass on an error of a trial, or the death of its worker."""
        self._supervisor.fail(trial.trial_id)


def register(supervisor: TrialSupervisor, trial: TuneTrial) -> None:
    """Register an attempt with the supervisor."""
    supervisor.register(trial.trial_id, decode_config(trial.config), lambda: _error_text(trial))


def _error_text(trial: TuneTrial) -> str:
    """Text of Ray's error, which Tune writes to the driver's disk before it calls any hook."""
    path = trial.error_file
    return Path(path).read_text("utf-8") if path and Path(path).exists() else ""


class EventLogCallback(tune.Callback):
    """Callback that passes starts, reports and ends on to the supervisor."""

    def __init__(self, supervisor: TrialSupervisor) -> None:
        self._supervisor = supervisor

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Pass on that a worker starts on a trial; before that it waited for resources."""
        register(self._supervisor, trial)
        self._supervisor.start(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """Pass on a message of a worker."""
        self._supervisor.report(trial.trial_id, from_dict(result))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Pass on the end of a trial."""
        self._supervisor.complete(trial.trial_id, from_dict(trial.last_result))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Pass on an error of a trial, or the death of its worker."""
        register(self._supervisor, trial)
        self._supervisor.fail(trial.trial_id)


class HangDetector(tune.Callback):
    """Callback that kills the worker of a trial that hangs; Tune then treats it as an error.

    It also lets the supervisor read the requests of users, since Tune calls it all the time.
    """

    def __init__(
        self, supervisor: TrialSupervisor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._supervisor, self._clock = supervisor, clock
        self._ticked_at = self._read_requests_at = clock()

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """Look for trials that hang; Tune calls this many times a second."""
        now = self._clock()
        if now - self._read_requests_at >= REQUESTS_POLL_S:
            self._supervisor.poll_requests()
            self._read_requests_at = now
        if now - self._ticked_at < HANG_POLL_S:
            return
        hanging = self._supervisor.hanging(now - self._ticked_at)
        self._ticked_at = now
        if not hanging:
            return
        for trial in trials:
            actor = actor_of(trial) if trial.trial_id in hanging else None
            if actor is not None:
                self._supervisor.give_up(trial.trial_id, hanging[trial.trial_id])
                ray.kill(actor)


class SearchStopper(tune.Stopper):
    """Stops the search at a limit, on a full disk, or on request; trials can be resumed later."""

    def __init__(self, usage: UsageTracker, supervisor: TrialSupervisor) -> None:
        self._usage, self._supervisor = usage, supervisor
        self.limit_reached = ""
        """Description of the limit; empty if none was reached."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial: the scheduler does that."""
        return False

    def stop_all(self) -> bool:
        """Stop if no trial can continue, or all have saved in a graceful shutdown."""
        self.limit_reached = self.limit_reached or self._usage.exceeded_limit()
        shutdown = self._supervisor.shutdown
        return bool(self._supervisor.full_disk) or shutdown.should_exit(bool(self.limit_reached))
