"""Runs the trials of a search with Ray Tune."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ray import cloudpickle, tune

from hpsearch.atomic_files import is_disk_full
from hpsearch.execution.checkpoint_store import TrialPayload, create_payload
from hpsearch.execution.freeze_thaw_searcher import FreezeThawSearcher
from hpsearch.execution.hang_detector import ReportTimeouts
from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.execution.placement import ResourceAllocator, placement_group
from hpsearch.execution.ray_patches import patched_actor_manager
from hpsearch.execution.ray_runtime import node_resources
from hpsearch.execution.retry_policy import DiskFullError, RetryPolicy, describe_fullest_disk
from hpsearch.execution.shutdown import GracefulShutdown, in_notebook
from hpsearch.execution.study_restore import end_in_study, reconcile
from hpsearch.execution.trial_supervisor import TrialSupervisor
from hpsearch.execution.tune_callbacks import (
    EventLogCallback,
    HangDetector,
    PruningScheduler,
    ResourceAwareSearcher,
    SearchStopper,
)
from hpsearch.execution.worker import run_decoded, train_on_worker
from hpsearch.search.pruners import FreezeThaw, PrunerWithHistory, build_pruner
from hpsearch.search.requests import SearchRequests
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.space_errors import translate_study_errors
from hpsearch.search.space_file import space_modules
from hpsearch.search.stopping import UsageTracker
from hpsearch.search.study import open_study_storage, study_address, study_name
from hpsearch.tracking.event_log import Event

TUNE_DIR = "tune"
UNLIMITED_TRIALS = 10_000
"""Limit of concurrent trials for Tune; the resource allocator sets the real one."""


@dataclass(frozen=True)
class SessionResult:
    """End of a session of a search."""

    exhausted: bool
    """True if there was no further trial to start."""
    limit: str
    """Description of the limit that was reached; empty if none was."""
    space_exhausted: bool = False
    """True if there are fewer different configurations than trials were planned."""


def run_session(context: SearchContext) -> SessionResult:
    """Run the trials of a new or resumed search until none is left, a limit, or Ctrl-C.

    Tune starts from scratch each time, and nothing reads what it writes: the study holds the
    trials, the event log their reports, and the checkpoint store their state.

    Raises:
        UserError: if the cluster cannot hold a trial, or not so many at once, or the storage of the
            study fails.
        DiskFullError: if a disk is full.
    """
    address = study_address(context.paths.folder, context.record.study)
    try:
        with translate_study_errors(address):
            return _run_tuner(context)
    except DiskFullError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise _disk_full_error(
                context, describe_fullest_disk([context.paths.folder])
            ) from error
        raise


@contextmanager
def objects_frozen() -> Iterator[None]:
    """Exempt the objects that exist now from garbage collection meanwhile.

    Imported libraries have 400,000 objects, which each full collection would examine, and none of
    them becomes garbage during a search.
    """
    if gc.get_freeze_count():
        yield  # the program that calls this has frozen its own objects
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _run_tuner(context: SearchContext) -> SessionResult:
    search, record = context.search, context.record
    reconcile(context)
    allocator = ResourceAllocator(context.resources, node_resources(), record.max_concurrent_trials)
    payload = _create_payload(context)
    supervisor = _build_supervisor(context, allocator, payload)
    supervisor.searcher.requests = supervisor.requests
    supervisor.poll_requests()
    searcher = ResourceAwareSearcher(supervisor, node_resources)
    stopper = SearchStopper(UsageTracker(record.limits, context.event_log), supervisor)
    tuner = tune.Tuner(
        _trainable(search, payload),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=PruningScheduler(supervisor),
            num_samples=-1,  # the study decides when there are enough
            max_concurrent_trials=UNLIMITED_TRIALS,
            reuse_actors=True,  # a fresh worker costs two seconds and a torch import
            trial_dirname_creator=_trial_dirname,
        ),
        run_config=tune.RunConfig(
            name=TUNE_DIR,
            storage_path=str(context.paths.folder.absolute()),
            callbacks=[EventLogCallback(supervisor), HangDetector(supervisor)],
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=0),  # the supervisor decides on retries
            verbose=0,
            progress_reporter=SilentReporter() if in_notebook() else None,
        ),
    )
    with objects_frozen(), patched_actor_manager(), supervisor.shutdown.handle_sigint():
        tuner.fit()
    if isinstance(supervisor.searcher, FreezeThawSearcher):
        end_in_study(context)  # paused trials that users stopped
    if supervisor.full_disk:
        raise _disk_full_error(context, supervisor.full_disk)
    exhausted = searcher.exhausted and supervisor.searcher.is_exhausted
    return SessionResult(searcher.exhausted, stopper.limit_reached, exhausted)


class SilentReporter(tune.ProgressReporter):
    """Reporter for notebooks, where Tune's own clears the output of the cell, also if not verbose.

    Elsewhere Tune warns of any reporter that it is given.
    """

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        """Leave the report to our own progress display."""
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: str) -> None:
        """Leave the display to our own progress table."""


def _build_supervisor(
    context: SearchContext, allocator: ResourceAllocator, payload: TrialPayload
) -> TrialSupervisor:
    search, record, events = context.search, context.record, context.event_log.events()
    retry_policy, timeouts = RetryPolicy(), ReportTimeouts(record.report_timeout)
    requests = SearchRequests(context.event_log)
    retry_policy.load_history(events)
    timeouts.load_history(events)
    return TrialSupervisor(
        event_log=context.event_log,
        searcher=_build_searcher(context),
        allocator=allocator,
        retry_policy=retry_policy,
        pruner=_build_pruner(search, _study_name(context), events),
        timeouts=timeouts,
        shutdown=GracefulShutdown(
            notify_workers=lambda: payload.store_actor.announce_shutdown.remote(),
            has_running_trials=lambda: allocator.has_running,
        ),
        was_killed_for_memory=payload.was_killed_for_memory,
        requests=requests,
    )


def _build_searcher(context: SearchContext) -> OptunaSearcher:
    record = context.record
    settings: dict[str, Any] = {
        "space": context.paths.space,
        "search": context.search,
        "trials": record.trials,
        "url": record.study,
        "patience_offset": record.patience_offset,
    }
    if not isinstance(context.search.active_pruner, FreezeThaw):
        return OptunaSearcher(context.paths.folder, **settings)
    paused = [run.id for run in context.runs if run.status == "paused"]
    return FreezeThawSearcher(context.paths.folder, paused=paused, **settings)


def _study_name(context: SearchContext) -> str:
    folder, url = context.paths.folder, context.record.study
    return study_name(folder, open_study_storage(folder, url), url)


def _disk_full_error(context: SearchContext, full: str) -> DiskFullError:
    return DiskFullError(
        f"{full}, so search {context.name!r} has stopped; nothing is lost: free some space there "
        "and resume"
    )


def _build_pruner(search: Search, name: str, events: list[Event]) -> PrunerWithHistory:
    pruner = build_pruner(
        search.active_pruner, grace_period=search.first_report, budget=search.budget
    )
    direction = search.objective.direction
    return PrunerWithHistory(pruner, direction=direction, name=name, events=events)


def _create_payload(context: SearchContext) -> TrialPayload:
    job = context.environment
    compute_config = job.computing.model_copy(update={"device": context.resources.device})
    return create_payload(
        replace(job, computing=compute_config), context.paths.folder, context.paths.trials_dir
    )


def _trainable(search: Search, payload: TrialPayload) -> Callable[[dict], None]:
    given = {"payload": payload, "objective": search.objective, "folds": search.num_folds}
    function = partial(run_decoded, train=train_on_worker, **given)
    for module in space_modules():  # which no worker can import
        cloudpickle.register_pickle_by_value(module)
    return tune.with_resources(function, placement_group)


def _trial_dirname(trial: Any) -> str:
    return f"{trial.config['id']}-{trial.trial_id}"
