"""One session of a search: its trials, the baseline, test scores, and the registration."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import NoReturn

from hpsearch.config.custom import custom_parts
from hpsearch.errors import EXIT_INTERRUPTED, UserError
from hpsearch.execution import ray_runtime, tuner
from hpsearch.execution.ray_runtime import monitor_head, requested_nodes
from hpsearch.execution.retry_policy import DiskFullError
from hpsearch.execution.shutdown import install_termination_handlers
from hpsearch.execution.study_restore import end_paused_trials
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.stopping import runs_are_out_of_patience
from hpsearch.search.warm_start import start_warm
from hpsearch.tracking.model_registry import configure_mlflow_logging
from hpsearch.workflows.finish_search import (
    StepTimer,
    finish_search,
    train_winner,
)
from hpsearch.workflows.observer import Observer, SearchResult

LOG_FILE = "search.log"
"""Log of a search in its folder: messages of all its sessions, and warnings of libraries."""


def run_session(context: SearchContext, observer: Observer) -> SearchResult:
    """Train the trials that are left, then finish the search; see ``_run_session``.

    The observer receives the end, whatever it is. Messages also go to ``search.log``.
    """
    with _log_file(context):
        try:
            result = _run_session(context, observer)
        except BaseException as error:
            observer.search_ended(None, error)
            raise
        observer.search_ended(result, None)
        return result


@contextmanager
def _log_file(context: SearchContext) -> Iterator[None]:
    """Append what is logged inside to the log file of a search."""
    try:
        handler = logging.FileHandler(context.paths.folder / LOG_FILE, encoding="utf-8")
    except OSError:  # a full disk, which the search itself reports
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _run_session(context: SearchContext, observer: Observer) -> SearchResult:
    """Train the trials that are left, then finish the search.

    Ctrl-C, SIGTERM and SIGHUP save all trials.

    Raises:
        UserError: if the cluster cannot run the trials, or the storage of the study fails.
        DiskFullError: if a disk is full.
        KeyboardInterrupt: if interrupted after the last trial; ``resume`` finishes the search.
    """
    configure_mlflow_logging()
    install_termination_handlers()
    mlflow_sync = context.mlflow_sync()
    if kind := mlflow_sync.tracking.network_file_system:
        observer.message(
            f"MLflow's database lies on a network file system ({kind}): one machine at a time may "
            "write to it"
        )
    mlflow_sync.start()
    timer = StepTimer()
    try:
        with timer.step("trials"):
            interruption = None if context.is_complete else run_trials(context, observer)
            if context.is_complete:
                _end_paused_trials(context, observer)
        if interruption is not None:
            return SearchResult(context=context, status="interrupted", reason=interruption)
        if context.search.num_folds and any(r.status == "completed" for r in context.runs):
            with timer.step("winner"):
                train_winner(context, observer)
        return finish_search(context, mlflow_sync, observer, timer)
    except KeyboardInterrupt:
        close_session(context)
        observer.message(
            f"Interrupted; nothing is lost. Finish the search with:  {context.command('resume')}"
        )
        raise
    except BaseException:
        close_session(context)
        raise
    finally:
        if not mlflow_sync.stop():
            observer.warning(
                f"MLflow has not received everything: {mlflow_sync.last_error or 'it is slow'}; "
                f"send the rest later with:  {context.command('sync')}"
            )


def _end_paused_trials(context: SearchContext, observer: Observer) -> None:
    count = end_paused_trials(context)
    if count:
        trials = "1 paused trial is" if count == 1 else f"{count} paused trials are"
        observer.message(f"{trials} not expected to become the best: pruned")


def run_trials(context: SearchContext, observer: Observer, *, command: str = "") -> str | None:
    """Run the trials that are left with Ray.

    Args:
        context: the search.
        observer: receives messages, and follows the trials.
        command: the command line that resumes after an interruption; ``hpsearch resume NAME`` if
            empty.

    Returns:
        Why the search cannot end yet: an interruption, or a limit before any trial completed. None
        if it can.

    Raises:
        DiskFullError: if a disk is full.
    """
    search, record = context.search, context.record
    command = command or context.command("resume")
    if record.warm_start_from and not context.runs:
        known, there = start_warm(context)
        observer.message(
            f"warm start: {known} of {there} trials of {record.warm_start_from} fit the space"
        )
    start_ray(observer, address=record.address, cpus=record.cpus)
    install_termination_handlers()  # installed again because Ray replaces that of SIGTERM
    try:
        with (
            _requested_nodes(context, observer),
            observer.training(context),
            monitor_head(lambda: _exit_on_head_loss(context, command, observer)),
        ):
            ray_runtime.check_packages(_own_packages(search))
            session = tuner.run_session(context)
    except Exception as error:
        with suppress(OSError):  # if there is space left for that
            close_running_trials(context)
            context.event_log.append("search_finished", status="interrupted")
        if isinstance(error, DiskFullError):
            raise DiskFullError(f"{error} with:  {command}") from error
        raise
    finally:
        ray_runtime.stop_ray()
    open_runs = close_running_trials(context)
    if session.space_exhausted:
        count = sum(run.kind == "trial" for run in context.runs)
        observer.message(
            f"the space has no further configuration, as far as can be found, so the search ends "
            f"after {count} trials instead of {record.trials}"
        )
        context.with_record(trials=count)
    if not open_runs and (session.exhausted or context.is_complete):
        _end_paused_trials(context, observer)
        if runs_are_out_of_patience(context.runs, search, patience_offset=record.patience_offset):
            observer.message(
                f"{search.patience} trials in a row brought no improvement, so the search ends"
            )
        return None
    if session.limit:
        return _finish_at_limit(context, session.limit, open_runs, command, observer)
    context.event_log.append("search_finished", status="interrupted")
    reason = f"Interrupted; nothing is lost. Resume with:  {command}"
    observer.message(reason)
    return reason


def _own_packages(search: Search) -> tuple[str, ...]:
    """Packages that the user's own objects need, of the baseline and of some drawn trials."""
    parts = [part for one in (search.baseline, *search.examples()) for _, part in custom_parts(one)]
    return tuple(sorted({name for part in parts for name in part.packages}))


def start_ray(observer: Observer, *, address: str | None, cpus: int | None) -> None:
    """Join a cluster and report which, or start Ray on this machine.

    Raises:
        UserError: if there is no cluster at ``address``.
    """
    joined = ray_runtime.start_ray(address=address, cpus=cpus)
    if joined:
        observer.message(f"joined the Ray cluster at {joined}")


def _requested_nodes(context: SearchContext, observer: Observer) -> AbstractContextManager[None]:
    """Request the nodes that the trials need and wait for them, if the search is to wait."""
    if not context.record.wait_for_nodes:
        return nullcontext()
    return requested_nodes(
        context.resources, context.record.max_concurrent_trials, observer.message
    )


def _exit_on_head_loss(context: SearchContext, command: str, observer: Observer) -> NoReturn:
    """Exit the process, since Ray's thread waits forever for a lost head node."""
    close_running_trials(context)
    context.event_log.append("search_finished", status="interrupted")
    observer.message(
        f"The head node of the cluster at {context.record.address or 'this machine'} does not "
        "answer. Nothing is lost. Once a head runs again (elsewhere: with --address), resume "
        f"with:  {command}"
    )
    with suppress(Exception):  # the rest is sent to MLflow when the search is resumed
        context.mlflow_sync().sync()
    os._exit(EXIT_INTERRUPTED)


def _finish_at_limit(
    context: SearchContext, limit: str, open_runs: int, command: str, observer: Observer
) -> str | None:
    """Log that a limit is reached; if a trial completed, the search finishes as usual."""
    context.event_log.append("limit", reason=limit)
    observer.message(
        f"The limit of {limit} is reached (trials interrupted: {open_runs}). "
        f"Resume with a larger limit:  {command}"
    )
    if any(run.status == "completed" for run in context.runs):
        return None
    context.event_log.append("search_finished", status="interrupted")
    reason = "No trial completed within the limit, so there is no winner yet."
    observer.message(reason)
    return reason


def close_session(context: SearchContext) -> None:
    """Log the end of a session that an error or a signal ended, unless its end is logged.

    So no MLflow run stays RUNNING. A full disk, or a damaged event log, is no further error.
    """
    with suppress(OSError, UserError):
        close_running_trials(context)
        if context.state.finish_event is None:
            context.event_log.append("search_finished", status="interrupted")


def close_running_trials(context: SearchContext) -> int:
    """Log trials that did not end as interrupted; return the number of all that can be resumed.

    The supervisor has already logged those that saved in time in a graceful shutdown.
    """
    for run in context.runs:
        if run.status == "running":
            context.event_log.append("trial_finished", trial=run.id, status="interrupted")
    return sum(run.kind == "trial" and run.status == "interrupted" for run in context.runs)
