"""Resuming and extending of searches.

Heavy modules are imported inside functions, after all checks that do not need them.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpsearch.atomic_files import write_atomic
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.object_storage.lease import require_driver
from hpsearch.promotion.retraining_plan import check_not_promotion
from hpsearch.redaction import refuse_password
from hpsearch.search.overrides import with_overrides
from hpsearch.search.requests import SearchRequests, append_request
from hpsearch.search.search_context import SearchContext
from hpsearch.search.space_file import (
    MODULES_DIR,
    copy_modules,
    imported_modules,
    keep_earlier_space,
    load_search,
)
from hpsearch.search.stopping import (
    Limits,
    UsageTracker,
    informative_trials,
    runs_are_out_of_patience,
)
from hpsearch.search.workspace import Workspace, is_finished, next_step
from hpsearch.workflows.callbacks import Callback, with_callbacks
from hpsearch.workflows.observer import Observer, SearchResult


def resume_search(
    name: str,
    *,
    address: str | None = None,
    on_space_change: str | None = None,
    limits: Mapping[str, Any] = MappingProxyType({}),
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> "SearchResult":
    """Resume a search that was interrupted or reached a limit; what has ended stays as it is.

    Args:
        name: name of the search.
        address: another Ray cluster than before, or ``local`` for none.
        on_space_change: ``keep`` or ``update``, if the space's file has changed since the start.
        limits: fields of ``Limits`` that change.
        tracking_uri: address of MLflow; the search's own if None.
        home: folder of the search.
        observer: receives messages and progress.
        callbacks: called as trials start, report and end; see ``hp.Callback``.
        changes: ``max_concurrent_trials``, ``cpus``, ``report_timeout``: as in ``run_search``.

    Raises:
        UserError: if there is no such search, or it has nothing left to do.
    """
    observer = with_callbacks(observer, callbacks)
    context = reopen(name, Path(home), tracking_uri)
    with context.lock():
        context = resolve_space_change(context, on_space_change, observer)
        context = context.with_record(
            limits=merged_limits(context.record.limits, limits), **changes
        )
        _follow_resume(context, changes)
        check_not_finished(context)
        check_storages(context)

        from hpsearch.workflows.search_session import run_session

        return run_session(switch_cluster(context, address, observer), observer)


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
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> "SearchResult":
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
        callbacks: called as trials start, report and end; see ``hp.Callback``.
        changes: ``max_concurrent_trials``, ``cpus``, ``report_timeout``: as in ``run_search``.

    Raises:
        UserError: if there is no such search, or its space has no more points.
    """
    observer = with_callbacks(observer, callbacks)
    context = reopen(name, Path(home), tracking_uri)
    with context.lock():
        context = resolve_space_change(context, on_space_change, observer)
        new = merged_limits(context.record.limits, limits)
        check_storages(context)
        context = extend(switch_cluster(context, address, observer), trials, limits=new, **changes)

        from hpsearch.workflows.search_session import run_session

        return run_session(context, observer)


def _follow_resume(context: SearchContext, changes: Mapping[str, Any]) -> None:
    """Make the options of a resume replace what was requested before."""
    requests, most = SearchRequests(context.event_log), changes.get("max_concurrent_trials")
    if requests.paused:
        append_request(context.event_log, "continue")
    if most is not None and requests.max_concurrent_trials not in (None, most):
        append_request(context.event_log, "concurrency", count=most)


def merged_limits(before: Limits, changes: Mapping[str, Any]) -> Limits:
    """Limits of a search with those that change."""
    return Limits.model_validate({**before.model_dump(), **changes})


def reopen(name: str, home: Path, tracking_uri: str | None = None) -> SearchContext:
    """Open an existing search with the patches that it started with.

    Raises:
        UserError: if there is no such search, its patches have changed, or another machine writes
            to its home.
    """
    context = Workspace(home).open(name, tracking_uri=tracking_uri)
    require_driver(home)  # the patches may be on that machine alone
    check_not_promotion(context)
    _ = context.data  # before anything is written
    return context


def check_storages(context: SearchContext) -> None:
    """Check what a session needs from its beginning to its end: study and MLflow's experiment.

    Raises:
        UserError: if the study lacks trials, or the experiment was deleted.
    """
    from hpsearch.search.study import check_study_complete

    context.tracking().check_experiment()
    check_study_complete(context)


def check_not_finished(context: SearchContext) -> None:
    """Check that a search has something left to do.

    Raises:
        UserError: if the search has finished, or has used up its limits.
    """
    if is_finished(context):
        raise UserError(
            f"search {context.name!r} has finished; {next_step(context)}", code="search-finished"
        )
    if not context.is_complete:
        check_limits_not_spent(context)


def switch_cluster(
    context: SearchContext, address: str | None, observer: Observer
) -> SearchContext:
    """Move a search to another cluster, once that has answered; None changes nothing.

    Raises:
        UserError: if there is no cluster at ``address``.
    """
    if address is None:
        return context
    refuse_password(address, "--address")

    from hpsearch.execution.ray_runtime import LOCAL_ADDRESS
    from hpsearch.workflows.search_session import start_ray

    start_ray(observer, address=address, cpus=context.record.cpus)
    return context.with_record(address=None if address == LOCAL_ADDRESS else address)


def extend(context: SearchContext, trials: int, **fields: Any) -> SearchContext:
    """Add trials to a search; its patience counts from 0 again.

    Args:
        trials: number added to the planned ones, or to those started when patience ran out.
        fields: more of its record that changes.

    Raises:
        UserError: if there are no more points, or the limits of the search are used up.
    """
    stated, runs, record = context.search, context.runs, context.record
    gave_up = runs_are_out_of_patience(runs, stated, patience_offset=record.patience_offset)
    before = sum(run.kind == "trial" for run in runs) if gave_up else record.trials
    after = stated.num_trials(before + trials)
    if after == before:
        raise UserError(
            f"search {context.name!r} has no more points: sampler {stated.sampler.kind!r} lists "
            f"{before} trials; raise seeds_per_point, or search another space",
            code="no-more-points",
        )
    changed = {"trials": after, "patience_offset": len(informative_trials(runs)), **fields}
    check_limits_not_spent(context.changed(**changed))
    context.event_log.append("extend", trials=after)
    return context.with_record(**changed)


def check_limits_not_spent(context: SearchContext) -> None:
    """Check that a search may train more; raises ``UserError`` if it has used up a limit."""
    reached = UsageTracker(context.record.limits, context.event_log).exceeded_limit()
    if reached:
        raise UserError(
            f"search {context.name!r} has reached its limit of {reached}; set a larger one with "
            "--max-patches or --gpu-seconds",
            code="limit-reached",
        )


def resolve_space_change(
    context: SearchContext, choice: str | None, observer: Observer
) -> SearchContext:
    """Choose the space that a search resumes with, if its file has changed since the start.

    Raises:
        UserError: if it has changed and ``choice`` is neither ``keep`` nor ``update``, or if the
            trials are not comparable with the new space.
    """
    if choice not in (None, "keep", "update"):
        raise UserError(
            f"--on-space-change is keep or update, not {choice!r}", code="invalid-choice"
        )
    origin = Path(context.record.space_path or "")
    changed = _changed_files(context.paths.space, origin) if origin.is_file() else {}
    if not changed:
        return context
    match choice:
        case "keep":
            return context.with_record(space_path=None)
        case "update":
            from hpsearch.search.warm_start import check_same_terms

            stated, modules = load_search(origin), imported_modules()
            new = with_overrides(stated, context.record.overrides)
            check_same_terms(context, new)
            if new.folder is not None:  # with those of objects drawn just now
                modules = {**new.folder.used, **modules}
            keep_earlier_space(context.paths.space)
            copy_modules(modules, context.paths.space.with_name(MODULES_DIR))
            write_atomic(context.paths.space, origin.read_bytes())
            return context.with_search(new)
    for before, now in changed.items():
        observer.message(_difference(before, now))
    names = ", ".join(now.name for now in changed.values())
    raise UserError(
        f"{names} {'has' if len(changed) == 1 else 'have'} changed since search {context.name!r} "
        "started (diff above); "
        "--on-space-change keep resumes with it as it was, "
        "--on-space-change update with the new file",
        code="space-changed",
    )


def _changed_files(copy: Path, origin: Path) -> dict[Path, Path]:
    """Files of the user that differ from the copies of a search: the space and its modules."""
    modules = copy.with_name(MODULES_DIR)
    pairs = {copy: origin} | {
        file: origin.parent / file.relative_to(modules) for file in sorted(modules.rglob("*.py"))
    }
    return {
        before: now
        for before, now in pairs.items()
        if now.is_file() and now.read_bytes() != before.read_bytes()
    }


def _difference(before: Path, now: Path) -> str:
    lines = [p.read_text("utf-8", "replace").splitlines() for p in (before, now)]
    names = (f"{now.name} at the start", f"{now.name} now")
    return "\n".join(difflib.unified_diff(lines[0], lines[1], *names, lineterm=""))
