"""Supervisor of trials: decides once what follows from a report, a failure and an end.

Ray Tune calls its scheduler, its searcher and its callbacks at each event, one after the other,
in an order that it does not document. So none of them decides: each passes the event on to the
supervisor. The first call for an event decides and acts (study, event log, allocator, retry policy,
pruner, report timeouts); later calls for the same event return the same decision and do nothing.

Tune's trial id names an attempt: a trial that is retried is suggested again under a new id.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from hpsearch.execution.hang_detector import ReportTimeouts
from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.execution.placement import ResourceAllocator
from hpsearch.execution.resumable_trial import SECONDS_METRIC
from hpsearch.execution.retry_policy import RetryPolicy
from hpsearch.execution.shutdown import GracefulShutdown
from hpsearch.execution.worker_messages import (
    DiskFull,
    Failed,
    Reported,
    Restarted,
    WorkerMessage,
    message_outcome,
)
from hpsearch.search.constraints import cost_complaints, end_complaints
from hpsearch.search.pruners import PrunerWithHistory
from hpsearch.search.requests import STOP_REASON, SearchRequests
from hpsearch.search.resources import MEMORY_SHARE_METRIC, ResourceAllocation
from hpsearch.tracking.event_log import EventLog

MAX_TRACEBACK_CHARS = 4_000
"""Characters of a traceback that the event log keeps, from its end."""

Next = Literal["end", "retry", "pause", "interrupt"]
"""Fate of a trial whose attempt ended: final, or resumed at once, when it is chosen, or later."""


@dataclass(frozen=True)
class AttemptEnd:
    """End of an attempt."""

    next: Next
    status: str
    """Status of the trial; ``running`` if it is retried."""
    reason: str = ""


@dataclass
class _Attempt:
    id: str
    config: Mapping[str, Any]
    read_error: Callable[[], str]
    started: bool = False
    message: WorkerMessage | None = None
    """The latest message of the worker."""
    should_stop: bool = False
    should_pause: bool = False
    """True if it stops only to be resumed later."""
    end: AttemptEnd | None = None
    actions: deque[Callable[[], object]] = field(default_factory=deque)
    """Actions that follow from the decisions so far and are not yet done."""

    @property
    def trial(self) -> str:
        """The trial's name in the event log, the same for all its attempts."""
        return self.config["id"]

    def act(self, *actions: Callable[[], object]) -> None:
        """Do these actions after those left over: one that raises is tried again next time."""
        self.actions.extend(actions)
        while self.actions:
            self.actions[0]()
            self.actions.popleft()


@dataclass
class TrialSupervisor:
    """Decisions about trials, idempotent for each attempt.

    Args:
        event_log: of the search.
        searcher: suggests trials and keeps the study.
        allocator: resources of the attempts, by Tune's trial id.
        retry_policy: deaths of workers, and attempts without another try.
        pruner: decides at a report whether to stop a trial.
        timeouts: seconds without a report, by Tune's trial id.
        shutdown: state of a graceful shutdown.
        was_killed_for_memory: returns, by the trial's name, whether the system killed its worker
            because memory ran out; called after a death without a reason.
        requests: of users, in the event log; None if they are not read.
    """

    event_log: EventLog
    searcher: OptunaSearcher
    allocator: ResourceAllocator
    retry_policy: RetryPolicy
    pruner: PrunerWithHistory
    timeouts: ReportTimeouts
    shutdown: GracefulShutdown
    was_killed_for_memory: Callable[[str], bool] = lambda trial: False
    requests: SearchRequests | None = None
    full_disk: str = ""
    """Description of a full disk; empty if none was reported."""
    _attempts: dict[str, _Attempt] = field(default_factory=dict)
    _started_trials: set[str] = field(default_factory=set)
    """Trials that the event log has a start of, in this session."""

    def register(
        self,
        attempt_id: str,
        config: Mapping[str, Any],
        read_error: Callable[[], str] | None = None,
    ) -> None:
        """Register an attempt; a second call only adds ``read_error``.

        Args:
            attempt_id: Tune's trial id.
            config: as it was suggested.
            read_error: returns the text of Ray's error after a failure.
        """
        attempt = self._attempts.setdefault(
            attempt_id, _Attempt(attempt_id, config, read_error=lambda: "")
        )
        if read_error is not None:
            attempt.read_error = read_error

    def poll_requests(self) -> None:
        """Read what users have requested since, and follow it."""
        requests = self.requests
        if requests is None:
            return
        requests.refresh()
        if requests.max_concurrent_trials is not None:
            self.allocator.max_concurrent = requests.max_concurrent_trials
        if requests.stop_requested:
            self.shutdown.requested = True
        if requests.stopped_trials:
            for trial in self.searcher.release_paused(requests.stopped_trials):
                fields = {"status": "pruned", "reason": STOP_REASON}
                self.event_log.append("trial_finished", trial=trial, **fields)

    @property
    def is_paused(self) -> bool:
        """True while no further trial is started."""
        return self.requests is not None and self.requests.paused

    def _was_stopped(self, attempt: _Attempt) -> bool:
        return self.requests is not None and attempt.trial in self.requests.stopped_trials

    def start(self, attempt_id: str) -> None:
        """Record that a worker starts on an attempt."""
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            return
        if attempt.started:
            return attempt.act()
        attempt.started = True
        self.timeouts.start(attempt_id)
        attempt.act(partial(self._log_start, attempt))

    def report(self, attempt_id: str, message: WorkerMessage | None) -> bool:
        """Take a message of a worker.

        Args:
            attempt_id: Tune's trial id.
            message: None for a result of Tune's own, which changes nothing.

        Returns:
            Whether to stop the trial.
        """
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            return False
        if message is None or attempt.end is not None or message == attempt.message:
            attempt.act()
            return attempt.should_stop
        attempt.message = message
        match message:
            case Failed():
                self.retry_policy.mark_failed(
                    attempt_id, message.reason, out_of_gpu_memory=message.out_of_memory
                )
            case DiskFull():
                self.full_disk = self.full_disk or message.disk
            case Restarted():
                # the name of the event is part of the format of event logs
                attempt.act(
                    partial(self._log, "restarted_from_scratch", attempt, reason=message.reason)
                )
            case Reported():
                self._take_report(attempt, message)
        return attempt.should_stop

    def _take_report(self, attempt: _Attempt, report: Reported) -> None:
        self.retry_policy.record_progress(attempt.trial, report.seen)
        number, ended = attempt.config["number"], report.status != "running"
        pruned = self.pruner.should_prune(number, seen=report.seen, value=report.objective)
        pruned = pruned or self._was_stopped(attempt)
        too_costly = bool(cost_complaints(self.searcher.constraints, report.metrics))
        attempt.should_stop = ended or pruned or too_costly
        self.timeouts.record_report(attempt.id)
        if attempt.should_stop:  # the study receives the last report together with the end
            self.pruner.finish(number, completed=ended)
        else:
            share = report.metrics.get(MEMORY_SHARE_METRIC)
            if share:
                self.allocator.record_memory(share)
            attempt.act(partial(self.searcher.record_report, attempt.id, report))
            attempt.should_pause = attempt.should_stop = self._should_pause(attempt)
        fields = {"seen": report.seen, "objective": report.objective, "metrics": report.metrics}
        seconds = report.metrics.get(SECONDS_METRIC, 0.0)
        attempt.act(partial(self._log, "report", attempt, **fields, seconds=seconds))

    def _should_pause(self, attempt: _Attempt) -> bool:
        """Return whether the worker of a trial continues with another one, if it may start any."""
        if self.is_paused or self.shutdown.in_progress or self.shutdown.requested:
            return False
        return self.searcher.should_pause(attempt.id)

    def complete(self, attempt_id: str, message: WorkerMessage | None = None) -> AttemptEnd | None:
        """End a trial whose worker finished, or that was stopped after a report.

        Args:
            attempt_id: Tune's trial id.
            message: the last one of the worker; None for the last one that was reported.
        """
        return self._end_once(attempt_id, partial(self._complete, message=message))

    def fail(self, attempt_id: str) -> AttemptEnd | None:
        """Decide on a trial that raised or hung, or whose worker died: end, or another attempt."""
        return self._end_once(attempt_id, self._fail)

    def _end_once(
        self, attempt_id: str, end: Callable[[str, _Attempt], AttemptEnd]
    ) -> AttemptEnd | None:
        """End an attempt; the same end again if it has one, and None if it is unknown."""
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            return None
        if attempt.end is None:
            return end(attempt_id, attempt)
        attempt.act()
        return attempt.end

    def _complete(
        self, attempt_id: str, attempt: _Attempt, *, message: WorkerMessage | None
    ) -> AttemptEnd:
        attempt.message = message or attempt.message
        if attempt.should_pause:
            attempt.end = AttemptEnd("pause", "paused")
            self._release(attempt)
            study = partial(self.searcher.pause, attempt_id)
            attempt.act(study, partial(self._log, "trial_paused", attempt))
            return attempt.end
        status, reason = message_outcome(attempt.message)
        if status == "pruned" and self._was_stopped(attempt):
            reason = STOP_REASON
        if isinstance(attempt.message, Reported):
            violated = end_complaints(self.searcher.constraints, status, attempt.message.metrics)
            status, reason = ("infeasible", violated) if violated else (status, reason)
        attempt.end = AttemptEnd("end", status, reason)
        self._release(attempt)
        attempt.act(
            partial(self.searcher.finish, attempt_id, status, reason, attempt.message),
            partial(self._log, "trial_finished", attempt, status=status, reason=reason),
        )
        return attempt.end

    def _fail(self, attempt_id: str, attempt: _Attempt) -> AttemptEnd:
        error = attempt.read_error()
        self.retry_policy.record_worker_death(
            attempt_id, attempt.trial, error, partial(self.was_killed_for_memory, attempt.trial)
        )
        allocation = self._release(attempt)
        reason = self.retry_policy.failure_reason(attempt_id)
        if allocation is None or not self._should_retry(attempt_id, allocation):
            attempt.end = AttemptEnd("end", "failed", reason)
        elif self.shutdown.in_progress:
            attempt.end = AttemptEnd("interrupt", "interrupted")
        else:
            attempt.end = AttemptEnd("retry", "running", reason)
        attempt.act(*self._failure_actions(attempt, attempt.end, error))
        return attempt.end

    def _should_retry(self, attempt_id: str, allocation: ResourceAllocation) -> bool:
        """Retry where memory ran out only with more of it, and else unless the policy forbids."""
        if self.retry_policy.out_of_gpu_memory(attempt_id):
            return self.allocator.reduce_gpu_sharing(allocation)
        if self.retry_policy.out_of_node_memory(attempt_id):
            return self.allocator.limit_concurrency()
        return not self.retry_policy.should_not_retry(attempt_id)

    def _failure_actions(
        self, attempt: _Attempt, end: AttemptEnd, error: str
    ) -> list[Callable[[], object]]:
        """Study first, then event log: after a crash between them the next session ends the run."""
        study = partial(self.searcher.requeue, attempt.id)
        match end.next:
            case "retry":
                log = partial(self._log, "worker_failed", attempt, reason=end.reason)
            case "interrupt":
                log = partial(self._log, "trial_finished", attempt, status=end.status)
            case _:
                study = partial(self.searcher.finish, attempt.id, "failed", end.reason, None)
                fields = {"reason": end.reason, "traceback": error[-MAX_TRACEBACK_CHARS:]}
                log = partial(self._log, "trial_finished", attempt, status="failed", **fields)
        if attempt.trial not in self._started_trials:  # no worker could even be started for it
            return [study, partial(self._log_start, attempt), log]
        return [study, log]

    def hanging(self, elapsed: float) -> dict[str, float]:
        """Let time pass; attempts without a report for too long, with the seconds since the last.

        Args:
            elapsed: seconds since the last call.
        """
        return self.timeouts.advance(elapsed)

    def give_up(self, attempt_id: str, seconds: float) -> None:
        """Fail a trial that hangs, whatever its worker does now.

        Args:
            attempt_id: Tune's trial id.
            seconds: since its last report.
        """
        self.retry_policy.mark_failed(attempt_id, f"it hung: no report for {seconds:,.0f} s")
        self.timeouts.finish(attempt_id)

    def _release(self, attempt: _Attempt) -> ResourceAllocation | None:
        self.timeouts.finish(attempt.id)
        return self.allocator.release(attempt.id)

    def _log_start(self, attempt: _Attempt) -> None:
        config, drawn = attempt.config, json.loads(attempt.config["drawn"])
        self.pruner.train_on(config["number"], drawn.get("parent"))
        fields = {"number": config["number"], "config": config["trial"], "drawn": drawn}
        self._log("start", attempt, allocation=config["place"], **fields)
        self._started_trials.add(attempt.trial)

    def _log(self, event: str, attempt: _Attempt, **fields: Any) -> None:
        self.event_log.append(event, trial=attempt.trial, **fields)
