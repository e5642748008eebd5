"""Resuming and extending of searches."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
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
from hpsearch.search.stopping import (
    Limits,
    UsageTracker,
    informative_trials,
    runs_are_out_of_patience,
)
from hpsearch.search.warm_start import check_same_terms
from hpsearch.search.workspace import SearchFolder, Workspace
from hpsearch.tracking.run_state import SearchState
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.search_session import SearchResult, is_complete, run_session, start_ray


def resume_search(
    name: str,
    *,
    address: str | None = None,
    on_space_change: str | None = None,
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
        on_space_change: ``keep`` or ``update``, if the space's file has changed since the start.
        limits: fields of ``Limits`` that change.
        tracking_uri: address of MLflow; the search's own if None.
        home: folder of the search.
        observer: receives messages and progress.
        changes: ``max_concurrent_trials``, ``cpus``, ``report_timeout``: as in ``run_search``.

    Raises:
        UserError: if there is no such search, or it has nothing left to do.
    """
    observer = observer or Observer()
    folder = reopen(name, Path(home), tracking_uri)
    with folder.lock():
        folder = resolve_space_change(folder, on_space_change, observer)
        folder = folder.with_record(limits=_merged(folder.record.limits, limits), **changes)
        check_not_finished(folder)
        return run_session(switch_cluster(folder, address, observer), observer)


def extend_search(
    name: str,
    trials: int,
    *,
    address: str | None = None,
    on_space_change: str | None = None,
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
        on_space_change: ``keep`` or ``update``, if the space's file has changed since the start.
        limits: fields of ``Limits`` that change.
        tracking_uri: address of MLflow; the search's own if None.
        home: folder of the search.
        observer: receives messages and progress.
        changes: ``max_concurrent_trials``, ``cpus``, ``report_timeout``: as in ``run_search``.

    Raises:
        UserError: if there is no such search, or its space has no more points.
    """
    observer = observer or Observer()
    folder = reopen(name, Path(home), tracking_uri)
    with folder.lock():
        folder = resolve_space_change(folder, on_space_change, observer)
        new = _merged(folder.record.limits, limits)
        folder = extend(switch_cluster(folder, address, observer), trials, limits=new, **changes)
        return run_session(folder, observer)


def _merged(before: Limits, changes: Mapping[str, Any]) -> Limits:
    return Limits.model_validate({**before.model_dump(), **changes})


def reopen(name: str, home: Path, tracking_uri: str | None = None) -> SearchFolder:
    """A search that exists, with the patches that it began with."""
    folder = Workspace(home).open(name, tracking_uri=tracking_uri)
    check_not_promotion(folder)
    folder.store()
    return folder


def check_not_finished(folder: SearchFolder) -> None:
    """Make sure that there is something left to do.

    Raises:
        UserError: if the search has finished, or its limits leave it nothing.
    """
    if is_complete(folder) and _is_finished(folder):
        raise UserError(
            f"search {folder.name!r} has finished; add trials with "
            f"`{folder.command('extend', '--trials', '20')}`"
        )
    if not is_complete(folder):
        _check_limits_not_spent(folder)


def switch_cluster(folder: SearchFolder, address: str | None, observer: Observer) -> SearchFolder:
    """The search on another cluster, once that has answered; None leaves it where it was.

    Raises:
        UserError: if there is no cluster at ``address``.
    """
    if address is None:
        return folder
    refuse_password(address, "--address")
    start_ray(observer, address=address, cpus=folder.record.cpus)
    return folder.with_record(address=None if address == LOCAL_ADDRESS else address)


def extend(folder: SearchFolder, trials: int, **fields: Any) -> SearchFolder:
    """The search with more trials to train; who asks for more has patience anew.

    Args:
        trials: beside those that it had to train, or that it had begun when its patience ended.
        fields: more of its record that changes.

    Raises:
        UserError: if there are no more to try, or its limits leave it nothing.
    """
    stated, runs, record = folder.search(), folder.runs(), folder.record
    gave_up = runs_are_out_of_patience(runs, stated, patience_offset=record.patience_offset)
    before = sum(run.kind == "trial" for run in runs) if gave_up else record.trials
    after = stated.num_trials(before + trials)
    if after == before:
        raise UserError(
            f"search {folder.name!r} has no more to try: sampler {stated.sampler.kind!r} lists "
            f"{before} trials; raise seeds_per_point, or begin a search of another space"
        )
    changed = {"trials": after, "patience_offset": len(informative_trials(runs)), **fields}
    _check_limits_not_spent(replace(folder, record=folder.record.model_copy(update=changed)))
    folder.event_log.append("extend", trials=after)
    return folder.with_record(**changed)


def _check_limits_not_spent(folder: SearchFolder) -> None:
    reached = UsageTracker(folder.record.limits, folder.event_log).exceeded_limit()
    if reached:
        raise UserError(
            f"search {folder.name!r} has spent its limit of {reached}; set a larger one with "
            "--max-patches or --gpu-seconds"
        )


def resolve_space_change(
    folder: SearchFolder, choice: str | None, observer: Observer
) -> SearchFolder:
    """The search with the space that it goes on with, if the file has changed since it began.

    Raises:
        UserError: if it has and ``choice`` is neither ``keep`` nor ``update``, or if a search
            cannot go on with the new one.
    """
    if choice not in (None, "keep", "update"):
        raise UserError(f"--on-space-change is keep or update, not {choice!r}")
    origin = Path(folder.record.space_path or "")
    if not origin.is_file() or origin.read_bytes() == folder.space.read_bytes():
        return folder
    match choice:
        case "keep":
            return folder.with_record(space_path=None)
        case "update":
            check_same_terms(folder, load_search(origin))
            write_atomic(folder.space, origin.read_bytes())
            return folder
    observer.message(_space_difference(folder.space, origin))
    raise UserError(
        f"{origin.name} has changed since search {folder.name!r} began (above); "
        "--on-space-change keep resumes with it as it was, "
        "--on-space-change update with the new file"
    )


def _is_finished(folder: SearchFolder) -> bool:
    search_state = SearchState()
    for event in folder.event_log.events():
        search_state.apply(event)
    ended = (
        search_state.finish_event is not None and search_state.finish_event["status"] == "completed"
    )
    return ended and (folder.path / SCORES_FILE).exists()


def _space_difference(before: Path, now: Path) -> str:
    lines = [path.read_text().splitlines() for path in (before, now)]
    names = (f"{now.name} as it began", f"{now.name} now")
    return "\n".join(difflib.unified_diff(lines[0], lines[1], *names, lineterm=""))
