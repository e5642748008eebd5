"""One session of a search: its trials, the baseline, test scores, and the registration."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from hpsearch.errors import EXIT_INTERRUPTED, UserError
from hpsearch.evaluation import Scores
from hpsearch.execution import ray_runtime, tuner
from hpsearch.execution.ray_runtime import monitor_head, requested_nodes
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.execution.retry_policy import DiskFullError
from hpsearch.execution.shutdown import install_sigterm_handler
from hpsearch.promotion.final_evaluation import best_run, evaluate_on_test, train_baseline
from hpsearch.promotion.registration import RegistrationOutcome, register_winner
from hpsearch.promotion.score_cache import single_threaded
from hpsearch.search.search_context import SearchContext
from hpsearch.search.stopping import runs_are_out_of_patience
from hpsearch.search.warm_start import warm_start
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.connection import MlflowUnavailableError, TrackingError, first_error_line
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.model_registry import configure_mlflow_logging
from hpsearch.tracking.run_state import Run
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.publish_figures import named_scores, publish_figures


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Result of a session of a search."""

    context: SearchContext
    status: Literal["completed", "interrupted"]
    """``interrupted`` if trials are left that ``resume`` trains."""
    reason: str = ""
    """Reason of the interruption, or of a missing winner; else empty."""
    winner: Run | None = None
    """The completed trial with the best objective on validation."""
    test_scores: Mapping[str, Scores] = field(default_factory=dict)
    """Scores on test of the winner and the baselines, by name; empty without a winner."""
    registration: RegistrationOutcome | None = None
    """Outcome of the winner's registration; None if it failed."""

    @property
    def runs(self) -> list[Run]:
        """Trials and baselines of the search, of all its sessions."""
        return self.context.runs


def run_session(context: SearchContext, observer: Observer) -> SearchResult:
    """Train the trials that are left, then finish the search; Ctrl-C and SIGTERM save all trials.

    Raises:
        UserError: if the cluster cannot run the trials, or the storage of the study fails.
        DiskFullError: if a disk is full.
        KeyboardInterrupt: if interrupted after the last trial; ``resume`` finishes the search.
    """
    configure_mlflow_logging()
    install_sigterm_handler()
    mlflow_sync = context.mlflow_sync()
    mlflow_sync.start()
    try:
        interruption = None if is_complete(context) else run_trials(context, observer)
        if interruption is not None:
            return SearchResult(context=context, status="interrupted", reason=interruption)
        if context.search.num_folds and any(r.status == "completed" for r in context.runs):
            train_winner(context, observer)
        return finish_search(context, mlflow_sync, observer)
    except KeyboardInterrupt:
        _close_running_trials(context)
        context.event_log.append("search_finished", status="interrupted")
        raise
    finally:
        if not mlflow_sync.stop():
            observer.warning(
                f"MLflow has not received everything: {mlflow_sync.last_error or 'it is slow'}; "
                f"send the rest later with:  {context.command('sync')}"
            )


def finish_search(
    context: SearchContext, mlflow_sync: MlflowSync, observer: Observer
) -> SearchResult:
    """Train the baseline, evaluate on test, register the winner, and publish figures."""
    try:
        winner = best_run(context.runs, context.objective)
    except UserError as error:
        context.event_log.append("search_finished", status="completed")
        return SearchResult(context=context, status="completed", reason=str(error))
    observer.message(f"winner: trial {winner.label}; training the baseline for the same budget …")
    with observer.training(context, kind="baseline"):
        baseline = train_baseline(context)
    observer.message("evaluating on test …")
    scores = evaluate_on_test(context, winner, baseline)
    context.event_log.append("search_finished", status="completed", test=named_scores(scores))
    registration = _register_best(context, mlflow_sync, winner, observer)
    return SearchResult(
        context=context,
        status="completed",
        winner=winner,
        test_scores=scores,
        registration=registration,
    )


def _register_best(
    context: SearchContext, mlflow_sync: MlflowSync, winner: Run, observer: Observer
) -> RegistrationOutcome | None:
    try:
        mlflow_sync.stop()
        mlflow_sync.sync()
        registration = register_winner(context, winner)
        publish_figures(context, mlflow_sync)
    except (TrackingError, MlflowUnavailableError, OSError) as error:
        observer.warning(
            f"The winner was not registered: {first_error_line(error)}. Retry with:  "
            f"{context.command('promote')}"
        )
        return None
    return registration


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
        known, there = warm_start(context, Workspace(context.home).open(record.warm_start_from))
        observer.message(
            f"the sampler starts with {known} of {there} trials of {record.warm_start_from}"
        )
    start_ray(observer, address=record.address, cpus=record.cpus)
    install_sigterm_handler()  # installed again because Ray replaces the handler
    try:
        with (
            _requested_nodes(context, observer),
            observer.training(context),
            monitor_head(lambda: _exit_on_head_loss(context, command, observer)),
        ):
            session = tuner.run_session(context)
    except Exception as error:
        with suppress(OSError):  # if there is space left for that
            _close_running_trials(context)
            context.event_log.append("search_finished", status="interrupted")
        if isinstance(error, DiskFullError):
            raise DiskFullError(f"{error} with:  {command}") from error
        raise
    finally:
        ray_runtime.stop_ray()
    open_runs = _close_running_trials(context)
    if session.space_exhausted:
        count = sum(run.kind == "trial" for run in context.runs)
        observer.message(
            f"every configuration of the space has been trained, so the search ends after {count} "
            f"trials instead of {record.trials}"
        )
        context.with_record(trials=count)
    if not open_runs and (session.exhausted or is_complete(context)):
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
    _close_running_trials(context)
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


def train_winner(context: SearchContext, observer: Observer) -> None:
    """Train the winner on the whole training part, since cross-validation keeps no network."""
    winner = best_run(context.runs, context.objective)
    observer.message(f"winner: trial {winner.label}; training it on the whole training part …")
    post = CheckpointHooks(
        context.paths.trials_dir / winner.id,
        on_restart=lambda why: observer.message(f"restarted from scratch; {why}"),
    )
    with single_threaded():
        for _ in run_with_checkpoints(winner.config, context.environment, post):
            pass


def is_complete(context: SearchContext) -> bool:
    """Return whether no trial is left to train."""
    final = [run for run in context.runs if run.status not in ("running", "interrupted")]
    enough = sum(run.kind == "trial" for run in final) >= context.record.trials
    patience_offset = context.record.patience_offset
    return enough or runs_are_out_of_patience(
        context.runs, context.search, patience_offset=patience_offset
    )


def _close_running_trials(context: SearchContext) -> int:
    """Log trials that did not end as interrupted; return their number."""
    open_runs = [run for run in context.runs if run.status == "running"]
    for run in open_runs:
        context.event_log.append("trial_finished", trial=run.id, status="interrupted")
    return len(open_runs)
