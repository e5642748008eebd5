"""Trials that any program trains: it asks for one, reports, and ends it, without Ray.

Several processes on one file system may work on a search at once. Each call holds a lock for its
duration, so that study and event log change one call at a time, by the rules of a search with Ray.
A process holds a lock file for each of its trials; the system releases it when the process dies,
and the next call of ``ask``, of any process, hands the trial out again.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import IO, Literal, get_args

from hpsearch.atomic_files import try_lock
from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.execution.hang_detector import ReportTimeouts
from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.execution.placement import ResourceAllocator
from hpsearch.execution.retry_policy import MAX_DEATHS_WITHOUT_PROGRESS, RetryPolicy
from hpsearch.execution.shutdown import GracefulShutdown
from hpsearch.execution.study_restore import reconcile
from hpsearch.execution.trial_supervisor import TrialSupervisor
from hpsearch.execution.worker_messages import Failed, Reported
from hpsearch.search.outcome import finite_float, to_result
from hpsearch.search.pruners import PrunerWithHistory, build_pruner
from hpsearch.search.requests import SearchRequests
from hpsearch.search.resources import Resources
from hpsearch.search.search_context import SearchContext
from hpsearch.search.space_errors import translate_study_errors
from hpsearch.search.stopping import UsageTracker
from hpsearch.search.study import open_study_storage, study_address, study_name
from hpsearch.search.warm_start import start_warm
from hpsearch.tracking.event_log import Event
from hpsearch.training.loop import Report

EndStatus = Literal["completed", "collapsed", "diverged", "failed"]
ATTEMPT = "asked"
OVERSHOOT = 2
"""Largest number of budgets that a trial may report as seen; the last batch can exceed one."""
"""Id of the only attempt of a trial's supervisor."""
LOST_REASON = "its process ended without reporting its end"


@dataclass(eq=False)
class ExternalTrial:
    """Trial that this process trains."""

    id: str
    """Name in the event log, for example ``012``."""
    number: int
    config: TrialConfig
    folder: Path
    """Folder for its checkpoint, the same if the trial is handed out again."""
    supervisor: TrialSupervisor
    lease: IO[str]
    """File whose lock shows that this process holds the trial."""
    last: Reported | None = None
    should_stop: bool = False
    """True once a report was answered by stopping the trial."""
    ended: bool = False


class ExternalTrials:
    """Trials of a search that this process trains, in addition to those of other processes.

    Args:
        context: the search; no process with Ray may run it at the same time.
    """

    def __init__(self, context: SearchContext) -> None:
        self._context, self._offset = context, 0
        self._session: ExitStack | None = None
        self._open: dict[str, ExternalTrial] = {}
        self._requests = SearchRequests(context.event_log)
        self._usage = UsageTracker(context.record.limits, context.event_log)
        self._pruner: PrunerWithHistory | None = None

    def ask(self, *, cpus: float = 1, gpus: float = 0) -> ExternalTrial | None:
        """Start the next trial; one that another process left comes first.

        Args:
            cpus: CPUs that it uses, for the event log.
            gpus: GPUs that it uses, which the limit of GPU seconds counts.

        Returns:
            The trial; None if there is none to start now, because all are started or the search is
            paused or has reached a limit.

        Raises:
            UserError: if a process with Ray runs the search, or its study is not available.
        """
        with self._exclusive():
            reconcile(self._context)
            if not self._context.runs:
                start_warm(self._context)
            if self._requests.paused or self._usage.exceeded_limit():
                return None
            while True:
                trial = self._next_trial(Resources(cpus=cpus, gpus=gpus, device="cpu"))
                if trial is None or not self._has_failed_too_often(trial):
                    break
        if trial is not None:
            trial.folder.mkdir(parents=True, exist_ok=True)
        return trial

    def report(self, trial: ExternalTrial, seen: int, metrics: Mapping[str, float]) -> bool:
        """Report the scores of a trial.

        Args:
            trial: as ``ask`` returned it.
            seen: patches that it has seen.
            metrics: scores by name, the search's objectives among them.

        Returns:
            Whether to stop the trial, which the caller then ends.

        Raises:
            UserError: if the trial has ended, the objective is missing or not finite, or ``seen``
                is not a number of patches.
        """
        most = OVERSHOOT * self._context.search.budget
        if not isinstance(seen, Integral) or isinstance(seen, bool) or not 1 <= seen <= most:
            raise UserError(
                f"trial {trial.id} reported {seen!r} patches; give a whole number from 1 to about "
                f"the budget, {self._context.search.budget:,}",
                code="invalid-seen",
            )
        message = self._message(trial, Report(int(seen), dict(metrics)))
        if trial.last is not None and seen <= trial.last.seen:
            raise UserError(
                f"trial {trial.id} reported {trial.last.seen:,} patches before; report more than "
                f"that, not {seen:,}",
                code="report-out-of-order",
            )
        with self._exclusive():
            trial.should_stop = trial.supervisor.report(ATTEMPT, message)
            trial.last = message
        return trial.should_stop

    def tell(
        self, trial: ExternalTrial, *, status: EndStatus = "completed", reason: str = ""
    ) -> str:
        """End a trial; one that was to be stopped counts as pruned.

        Args:
            trial: as ``ask`` returned it.
            status: how it ended.
            reason: in words, for a trial that failed, collapsed or diverged.

        Returns:
            Status in the search: ``pruned``, or the given one.

        Raises:
            UserError: if it has ended, completed without a report, or the status or the reason is
                not valid.
        """
        self._check_open(trial)
        if status not in get_args(EndStatus):
            raise UserError(
                f"{status!r} is not how trial {trial.id} can end; give one of "
                f"{', '.join(get_args(EndStatus))}",
                code="unknown-status",
            )
        if not isinstance(reason, str):
            raise UserError(
                f"the reason of trial {trial.id} is {reason!r}; give a text", code="invalid-reason"
            )
        last = trial.last
        if last is None and status != "failed":
            raise UserError(
                f"trial {trial.id} has no report; report its scores before it ends, or end it "
                'with status="failed"',
                code="no-report",
            )
        message: Failed | Reported | None = last
        if status == "failed":
            message = Failed(reason or "it failed")
        elif last is not None and not (trial.should_stop and status == "completed"):
            report = Report(last.seen, dict(last.metrics), status, reason)
            message = Reported(**to_result(report, self._context.objective))
        with self._exclusive():
            end = trial.supervisor.complete(ATTEMPT, message)
            self._close(trial)
        assert end is not None, "the trial is registered"
        return end.status

    def end_with(self, trial: ExternalTrial, report: Report) -> str:
        """End a trial with a last report, which has the status of its end.

        Returns:
            Status in the search.
        """
        message = self._message(trial, report)
        with self._exclusive():
            trial.supervisor.report(ATTEMPT, message)
            end = trial.supervisor.complete(ATTEMPT, message)
            self._close(trial)
        assert end is not None, "the trial is registered"
        return end.status

    def give_back(self, trial: ExternalTrial) -> None:
        """Interrupt a trial, which ``ask`` or ``hpsearch resume`` starts again."""
        self._check_open(trial)
        with self._exclusive():
            self._context.event_log.append("trial_finished", trial=trial.id, status="interrupted")
            self._close(trial)

    def _close(self, trial: ExternalTrial) -> None:
        trial.ended = True
        trial.lease.close()
        self._open.pop(trial.id, None)

    def _check_open(self, trial: ExternalTrial) -> None:
        if trial.ended:
            raise UserError(f"trial {trial.id} has ended; ask for another", code="trial-ended")

    def _message(self, trial: ExternalTrial, report: Report) -> Reported:
        self._check_open(trial)
        plain = {name: finite_float(value) for name, value in report.metrics.items()}
        for name, value in plain.items():
            if value is None:
                raise UserError(
                    f"metric {name!r} of trial {trial.id} is {report.metrics[name]!r}; report "
                    'finite numbers, or end the trial with status="diverged"',
                    code="metric-not-finite",
                )
        return Reported(**to_result(replace(report, metrics=plain), self._context.objective))

    def _next_trial(self, resources: Resources) -> ExternalTrial | None:
        context, search, record = self._context, self._context.search, self._context.record
        searcher = OptunaSearcher(
            context.paths.folder, space=context.paths.space, search=search, trials=record.trials,
            url=record.study, patience_offset=record.patience_offset,
        )  # fmt: skip
        searcher.requests = self._requests
        searcher.leave_to_others(self._is_held)
        suggested = searcher.suggest(ATTEMPT)
        if not isinstance(suggested, dict):
            return None
        name = suggested["id"]
        lease = self._lease(name)
        assert lease is not None, "another process asks only while it holds the lock"
        allocator = ResourceAllocator(resources, [{"CPU": resources.cpus, "GPU": 64}])
        allocation = allocator.acquire(ATTEMPT)
        assert allocation is not None, "the allocator is new"
        supervisor = TrialSupervisor(
            event_log=context.event_log,
            searcher=searcher,
            allocator=allocator,
            retry_policy=RetryPolicy(),
            pruner=self._pruner_now(),
            timeouts=ReportTimeouts(None),
            shutdown=GracefulShutdown(lambda: None, lambda: False),
            requests=self._requests,
        )
        supervisor.register(ATTEMPT, {**suggested, "place": allocation.model_dump()})
        self._log_loss(name)
        supervisor.start(ATTEMPT)
        config = TrialConfig.model_validate(suggested["trial"])
        folder = context.paths.trials_dir / name
        trial = ExternalTrial(name, suggested["number"], config, folder, supervisor, lease)
        self._open[name] = trial
        return trial

    def _log_loss(self, name: str) -> None:
        """Log that a trial was lost, if the event log has it as running."""
        run = self._context.state.runs.get(name)
        if run is not None and run.status == "running":
            self._context.event_log.append("worker_failed", trial=name, reason=LOST_REASON)

    def _has_failed_too_often(self, trial: ExternalTrial) -> bool:
        """Fail a trial whose processes died again and again without getting further."""
        deaths = 0
        for event in self._context.event_log.events():
            if event.get("trial") == trial.id:
                deaths += event["event"] == "worker_failed"
                deaths = 0 if event["event"] == "report" else deaths
        if deaths <= MAX_DEATHS_WITHOUT_PROGRESS:
            return False
        trial.supervisor.complete(ATTEMPT, Failed(f"{LOST_REASON}, {deaths} times"))
        self._close(trial)
        return True

    def _pruner_now(self) -> PrunerWithHistory:
        """Pruner of this process, with the reports of all processes so far."""
        if self._pruner is None:
            context, search = self._context, self._context.search
            folder, url = context.paths.folder, context.record.study
            self._pruner = PrunerWithHistory(
                build_pruner(
                    search.active_pruner, grace_period=search.first_report, budget=search.budget
                ),
                direction=search.objective.direction,
                name=study_name(folder, open_study_storage(folder, url), url),
            )
        self._pruner.replay(self._new_events())
        return self._pruner

    def _new_events(self) -> list[Event]:
        events, self._offset = self._context.event_log.read(self._offset)
        return events

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the search for one call, among the processes that train its trials."""
        context = self._context
        self._join()
        with (context.paths.folder / "external.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._requests.refresh()
            self._pruner_now()
            address = study_address(context.paths.folder, context.record.study)
            with translate_study_errors(address):
                yield

    def _join(self) -> None:
        """Keep processes with Ray from running the search while this one trains trials.

        Raises:
            UserError: if one runs it.
        """
        if self._session is None:
            session = ExitStack()
            session.enter_context(self._context.lock(shared=True))
            self._session = session

    def close(self) -> None:
        """Give back all open trials, and let processes with Ray run the search again."""
        for trial in list(self._open.values()):
            self.give_back(trial)
        if self._session is not None:
            self._session.close()
            self._session = None

    def _is_held(self, name: str) -> bool:
        lease = self._lease(name)
        if lease is not None:
            lease.close()
        return lease is None

    def _lease(self, name: str) -> IO[str] | None:
        """Lock file of a trial; None if a process holds it. It is released when it is closed."""
        folder = self._context.paths.folder / "asked"
        folder.mkdir(exist_ok=True)
        return try_lock(folder / f"{name}.lock")
