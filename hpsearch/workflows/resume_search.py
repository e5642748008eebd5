"""Resuming and extending of searches."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpsearch.atomic_files import write_atomic
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.execution.ray_runtime import LOCAL_ADDRESS
from hpsearch.promotion.final_evaluation import SCORES_FILE
from hpsearch.promotion.retraining_plan import check_not_promotion
from hpsearch.redaction import refuse_password
from hpsearch.search.search import load_search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.stopping import (
    Limits,
    UsageTracker,
    informative_trials,
    runs_are_out_of_patience,
)
from hpsearch.search.warm_start import check_same_terms
from hpsearch.search.workspace import Workspace
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.search_session import SearchResult, is_complete, run_session, start_ray


def resume_search(
    name: str,
    *,
    address: str | None = None,
    changed_space: str | None = None,
    limits: Mapping[str, Any] = MappingProxyType({}),
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
    **changes: Any,
) -> SearchResult:
    """Resume a search that was interrupted or reached a limit; what has ended stays as it is.

    Args:
        name: name of the search.
        address: another Ray cluster than before, or ``local`` for none.
        changed_space: ``keep`` or ``take``, if the space's file has changed since the search began.
        limits: fields of ``Limits`` that change.
        tracking_uri: address of MLflow; the search's own if None.
        home: folder of the search.
        observer: receives messages and progress.
        changes: ``concurrent``, ``cpus``, ``hang_after``: as in ``run_search``.

    Raises:
        UserError: if there is no such search, or it has nothing left to do.
    """
    observer = observer or Observer()
    context = reopen(name, Path(home), tracking_uri)
    with context.lock():
        context = resolve_space_change(context, changed_space, observer)
        context = context.with_record(limits=_merged(context.record.limits, limits), **changes)
        check_not_finished(context)
        return run_session(switch_cluster(context, address, observer), observer)


def extend_search(
    name: str,
    trials: int,
    *,
    address: str | None = None,
    changed_space: str | None = None,
    limits: Mapping[str, Any] = MappingProxyType({}),
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
    **changes: Any,
) -> SearchResult:
    """Add trials to a search, finished or not, and run them; the winner is chosen again at the end.

    Args:
        name: name of the search.
        trials: how many to add.
        address: another Ray cluster than before, or ``local`` for none.
        changed_space: ``keep`` or ``take``, if the space's file has changed since the search began.
        limits: fields of ``Limits`` that change.
        tracking_uri: address of MLflow; the search's own if None.
        home: folder of the search.
        observer: receives messages and progress.
        changes: ``concurrent``, ``cpus``, ``hang_after``: as in ``run_search``.

    Raises:
        UserError: if there is no such search, or its space has no more points.
    """
    observer = observer or Observer()
    context = reopen(name, Path(home), tracking_uri)
    with context.lock():
        context = resolve_space_change(context, changed_space, observer)
        new = _merged(context.record.limits, limits)
        context = extend(switch_cluster(context, address, observer), trials, limits=new, **changes)
        return run_session(context, observer)


def _merged(before: Limits, changes: Mapping[str, Any]) -> Limits:
    return Limits.model_validate({**before.model_dump(), **changes})


def reopen(name: str, home: Path, tracking_uri: str | None = None) -> SearchContext:
    """A search that exists, with the patches that it began with."""
    context = Workspace(home).open(name, tracking_uri=tracking_uri)
    check_not_promotion(context)
    _ = context.store  # before anything is written
    return context


def check_not_finished(context: SearchContext) -> None:
    """Make sure that there is something left to do.

    Raises:
        UserError: if the search has finished, or its limits leave it nothing.
    """
    if is_complete(context) and _is_finished(context):
        raise UserError(
            f"search {context.name!r} has finished; add trials with "
            f"`{context.command('extend', '--trials', '20')}`"
        )
    if not is_complete(context):
        _check_limits_not_spent(context)


def switch_cluster(
    context: SearchContext, address: str | None, observer: Observer
) -> SearchContext:
    """The search on another cluster, once that has answered; None leaves it where it was.

    Raises:
        UserError: if there is no cluster at ``address``.
    """
    if address is None:
        return context
    refuse_password(address, "--address")
    start_ray(observer, address=address, cpus=context.record.cpus)
    return context.with_record(address=None if address == LOCAL_ADDRESS else address)


def extend(context: SearchContext, trials: int, **fields: Any) -> SearchContext:
    """The search with more trials to train; who asks for more has patience anew.

    Args:
        trials: beside those that it had to train, or that it had begun when its patience ended.
        fields: more of its record that changes.

    Raises:
        UserError: if there are no more to try, or its limits leave it nothing.
    """
    stated, runs, record = context.search, context.runs, context.record
    gave_up = runs_are_out_of_patience(runs, stated, patience_offset=record.forgiven)
    before = sum(run.kind == "trial" for run in runs) if gave_up else record.trials
    after = stated.num_trials(before + trials)
    if after == before:
        raise UserError(
            f"search {context.name!r} has no more to try: sampler {stated.sampler.kind!r} lists "
            f"{before} trials; raise seeds_per_point, or begin a search of another space"
        )
    changed = {"trials": after, "forgiven": len(informative_trials(runs)), **fields}
    _check_limits_not_spent(context.changed(**changed))
    context.event_log.append("extend", trials=after)
    return context.with_record(**changed)


def _check_limits_not_spent(context: SearchContext) -> None:
    reached = UsageTracker(context.record.limits, context.event_log).exceeded_limit()
    if reached:
        raise UserError(
            f"search {context.name!r} has spent its limit of {reached}; set a larger one with "
            "--patches or --gpu-seconds"
        )


def resolve_space_change(
    context: SearchContext, choice: str | None, observer: Observer
) -> SearchContext:
    """The search with the space that it goes on with, if the file has changed since it began.

    Raises:
        UserError: if it has and ``choice`` is neither ``keep`` nor ``take``, or if a search cannot
            go on with the new one.
    """
    if choice not in (None, "keep", "take"):
        raise UserError(f"--changed-space is keep or take, not {choice!r}")
    origin = Path(context.record.origin or "")
    if not origin.is_file() or origin.read_bytes() == context.paths.space.read_bytes():
        return context
    match choice:
        case "keep":
            return context.with_record(origin=None)
        case "take":
            new = load_search(origin)
            check_same_terms(context, new)
            write_atomic(context.paths.space, origin.read_bytes())
            return context.with_search(new)
    observer.message(_space_difference(context.paths.space, origin))
    raise UserError(
        f"{origin.name} has changed since search {context.name!r} began (above); "
        "--changed-space keep resumes with it as it was, --changed-space take with the new file"
    )


def _is_finished(context: SearchContext) -> bool:
    finish_event = context.state.finish_event
    ended = finish_event is not None and finish_event["status"] == "completed"
    return ended and (context.paths.folder / SCORES_FILE).exists()


def _space_difference(before: Path, now: Path) -> str:
    lines = [path.read_text().splitlines() for path in (before, now)]
    names = (f"{now.name} as it began", f"{now.name} now")
    return "\n".join(difflib.unified_diff(lines[0], lines[1], *names, lineterm=""))
