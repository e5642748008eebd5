"""Requests to a search while it runs, and its state at a glance.

A request is an event of the log, which the process that runs the search reads; see
``search/requests.py``. All of them may be made while the search runs, and before it is resumed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hpsearch.atomic_files import is_locked
from hpsearch.errors import UserError, list_names
from hpsearch.object_storage.lease import is_locked_elsewhere
from hpsearch.search.requests import SearchRequests, append_request
from hpsearch.search.search_context import SearchContext
from hpsearch.search.time_estimate import seconds_left
from hpsearch.search.workspace import is_finished, next_step
from hpsearch.tracking.run_state import Run

SearchStateName = Literal["running", "paused", "interrupted", "completed", "new"]
ENDED = ("completed", "infeasible", "pruned", "collapsed", "diverged", "failed")
POLL_INTERVAL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class SearchStatus:
    """State of a search at a glance."""

    state: SearchStateName
    trials: int
    """Number of trials to train."""
    by_status: Mapping[str, int]
    """Number of trials by their status."""
    best: Run | None
    """Completed trial with the best objective."""
    started: float | None
    """Time of the first event, seconds since 1970; None before."""
    seconds_left: float | None
    """Estimated seconds to the end, while it runs; None if unknown."""

    @property
    def ended(self) -> int:
        """Number of trials that ended."""
        return sum(self.by_status.get(status, 0) for status in ENDED)


def is_running(context: SearchContext) -> bool:
    """Return whether a process trains trials of a search, on this file system or in its home.

    A process with Ray holds the lock alone, those that ask for trials share it. For a home in an
    object store, the process that writes there lists the locks that it holds.
    """
    lock = context.paths.lock
    return is_locked(lock) or is_locked_elsewhere(context.home, lock)


def search_status(context: SearchContext) -> SearchStatus:
    """Read the state of a search."""
    state, runs = context.state, [run for run in context.runs if run.kind == "trial"]
    counts = dict[str, int]()
    for run in runs:
        counts[run.status] = counts.get(run.status, 0) + 1
    completed = [run for run in runs if run.status == "completed" and run.reports]
    pick = max if context.objective.direction == "maximize" else min
    running = is_running(context)
    return SearchStatus(
        state=_state_name(context, running=running),
        trials=context.record.trials,
        by_status=counts,
        best=pick(completed, key=lambda run: run.reports[-1]["objective"]) if completed else None,
        started=state.search_event["time"] if state.search_event else None,
        seconds_left=seconds_left(
            context.runs, trials=context.record.trials, budget=context.search.budget
        )
        if running
        else None,
    )


def _state_name(context: SearchContext, *, running: bool) -> SearchStateName:
    if running:
        return "paused" if SearchRequests(context.event_log).paused else "running"
    finish_event = context.state.finish_event
    if finish_event is not None and finish_event["status"] == "completed":
        return "completed"
    return "interrupted" if context.runs else "new"


def stop_trial(context: SearchContext, trial: str | int) -> Run:
    """Stop a trial at its next report, where it counts as pruned.

    Raises:
        UserError: if there is no such trial, or it has ended.
    """
    run = find_trial(context, trial)
    if run.status in ENDED:
        raise UserError(
            f"trial {run.label} of search {context.name!r} has ended ({run.status})",
            code="trial-ended",
        )
    append_request(context.event_log, "stop-trial", trial=run.id)
    return run


def enqueue_trial(context: SearchContext, params: Mapping[str, Any]) -> None:
    """Try a point as the next trial that the sampler would draw, as Optuna's ``enqueue_trial``.

    Args:
        context: the search.
        params: values by the names that ``suggest`` uses; the sampler draws those left out.

    Raises:
        UserError: if the space does not have the point, or no trial is left to start.
    """
    from hpsearch.search.grid import validate_point

    search = context.search
    if search.is_finite:
        raise UserError(
            f"sampler {search.sampler.kind!r} of search {context.name!r} has its own points; start "
            "another search for this one",
            code="conflicting-points",
        )
    validate_point(search.suggest_config, params, complete=False)
    started = sum(run.kind == "trial" for run in context.runs)
    if started >= context.record.trials:
        raise UserError(
            f"all {started} trials of search {context.name!r} have been started; add some with "
            f"`{context.command('extend', '--trials', '5')}`, and try the point then",
            code="no-trial-left",
        )
    append_request(context.event_log, "try-point", point=dict(params))


def pause(context: SearchContext) -> None:
    """Start no further trial until ``unpause``; those that run are trained to their end.

    Raises:
        UserError: if no process runs the search.
    """
    require_running(context)
    append_request(context.event_log, "pause")


def unpause(context: SearchContext) -> bool:
    """Start trials of a paused search again.

    Returns:
        Whether it was paused and a process runs it.
    """
    if not (is_running(context) and SearchRequests(context.event_log).paused):
        return False
    append_request(context.event_log, "continue")
    return True


def set_concurrency(context: SearchContext, trials: int) -> None:
    """Change the largest number of concurrent trials; those that run are not stopped.

    Raises:
        UserError: if it is not positive.
    """
    if trials < 1:
        raise UserError(f"at least one trial must run at once, not {trials}", code="invalid-choice")
    append_request(context.event_log, "concurrency", count=trials)


def add_note(context: SearchContext, text: str, *, trial: str | int | None = None) -> None:
    """Note something about a trial, or about the whole search.

    Raises:
        UserError: if there is no such trial, or the note is empty.
    """
    if not text.strip():
        raise UserError("the note is empty; give a text", code="empty-note")
    fields = {} if trial is None else {"trial": find_trial(context, trial).id}
    append_request(context.event_log, "note", text=text, **fields)


def stop_search(context: SearchContext, *, timeout: float) -> bool:
    """Ask the process that runs a search to save all trials and end; wait for it.

    Args:
        context: the search.
        timeout: seconds to wait.

    Returns:
        Whether it has ended.

    Raises:
        UserError: if no process runs the search.
    """
    require_running(context)
    append_request(context.event_log, "stop")
    deadline = time.monotonic() + timeout
    while is_running(context) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    return not is_running(context)


def require_running(context: SearchContext) -> None:
    """Check that a process runs a search.

    Raises:
        UserError: if none does.
    """
    if not is_running(context):
        finished = is_finished(context)
        reason = "has finished" if finished else "is not running on this file system"
        raise UserError(
            f"search {context.name!r} {reason}; {next_step(context)}", code="search-not-running"
        )


def find_trial(context: SearchContext, trial: str | int) -> Run:
    """Find a trial by its number, such as ``12`` or ``012``.

    Raises:
        UserError: if there is none.
    """
    runs = [run for run in context.runs if run.kind == "trial"]
    wanted = str(trial)
    for run in runs:
        if wanted in (run.id, str(run.number)):
            return run
    known = list_names((run.label for run in runs[-5:]), limit=5) or "none yet"
    raise UserError(
        f"search {context.name!r} has no trial {wanted!r}; its latest are {known}",
        code="no-such-trial",
    )
