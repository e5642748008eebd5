"""Raise of the budget of a search: its best trials train on from their last checkpoints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.search.overrides import with_overrides
from hpsearch.search.requests import append_request
from hpsearch.search.search_context import SearchContext
from hpsearch.search.stopping import informative_trials
from hpsearch.tracking.run_state import UNFINISHED, Run
from hpsearch.workflows.callbacks import Callback, with_callbacks
from hpsearch.workflows.observer import Observer, SearchResult
from hpsearch.workflows.resume_search import (
    check_limits_not_spent,
    check_storages,
    merged_limits,
    reopen,
    resolve_space_change,
    switch_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

TRAINED_ON = ("completed", "pruned")
"""Statuses of trials that train on; a pruned one was paused at a rung."""


def extend_budget(
    name: str,
    budget: int,
    *,
    trials: int | None = None,
    address: str | None = None,
    on_space_change: str | None = None,
    limits: Mapping[str, Any] = MappingProxyType({}),
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> SearchResult:
    """Raise the budget of a search, and train its best trials on.

    Each becomes a new trial with the former as its parent, and starts from its last checkpoint. The
    learning rate follows its schedule as laid over the new budget, from the share that the parent
    has reached. The baseline trains on as well, and the winner is chosen again at the end.

    Args:
        name: name of the search.
        budget: patches of a trial from now on.
        trials: how many trials to train on, best first: those that completed, then those that were
            pruned; all that completed if None.
        address: another Ray cluster than before, or ``local`` for none.
        on_space_change: ``keep`` or ``update``, if the space's file has changed since the start.
        limits: fields of ``Limits`` that change.
        tracking_uri: address of MLflow; the search's own if None.
        home: folder of the search.
        observer: receives messages and progress.
        callbacks: called as trials start, report and end; see ``hp.Callback``.
        changes: ``max_concurrent_trials``, ``cpus``, ``report_timeout``: as in ``run_search``.

    Raises:
        UserError: if there is no such search, its budget is not smaller, or it has no trial whose
            training can continue.
    """
    observer = with_callbacks(observer, callbacks)
    context = reopen(name, Path(home), tracking_uri)
    with context.lock():
        context = resolve_space_change(context, on_space_change, observer)
        check_storages(context)
        chosen = trials_to_continue(context, budget, count=trials)
        fields = {"limits": merged_limits(context.record.limits, limits), **changes}
        context = switch_cluster(context, address, observer)
        context = request_continuations(context, budget, chosen, **fields)
        observer.message(
            f"search {name}: {len(chosen)} trials train on to {budget:,} patches: "
            f"{', '.join(run.label for run in chosen)}"
        )
        from hpsearch.workflows.search_session import run_session

        return run_session(context, observer)


def trials_to_continue(
    context: SearchContext, budget: int, *, count: int | None = None
) -> list[Run]:
    """Choose the trials that train on, best first.

    Args:
        context: the search.
        budget: its new budget.
        count: number of trials; all that completed if None.

    Raises:
        UserError: if the budget is not larger, trials are left to train, or none can train on.
    """
    search, runs = context.search, context.runs
    if budget <= search.budget:
        raise UserError(
            f"search {context.name!r} has a budget of {search.budget:,} patches; give a larger one "
            f"than {budget:,}",
            code="budget-not-larger",
        )
    if search.num_folds is not None:
        raise UserError(
            f"search {context.name!r} validates across folds, which keep no checkpoint, so its "
            "trials cannot train on; start a new search",
            code="folds-keep-no-checkpoint",
        )
    if any(run.kind == "trial" and run.status in UNFINISHED for run in runs):
        raise UserError(
            f"search {context.name!r} has unfinished trials of the budget before; finish them with "
            f"`{context.command('resume')}`",
            code="trials-unfinished",
        )
    known = list(_continuable(context, runs))
    statuses = TRAINED_ON if count is not None else TRAINED_ON[:1]
    chosen = [run for run in known if run.status in statuses][:count]
    if not chosen:
        raise UserError(
            f"search {context.name!r} has no {' or '.join(statuses)} trial with a checkpoint, so "
            "none can train on; add trials with --trials alone",
            code="nothing-to-continue",
        )
    return chosen


def _continuable(context: SearchContext, runs: Sequence[Run]) -> "Iterable[Run]":
    """Trials with a checkpoint that no other trains on, in the order of the leaderboard."""
    from hpsearch.reporting.leaderboard import leaderboard
    from hpsearch.training.trial import CHECKPOINT_FILE

    parents = {run.parent for run in runs}
    for row in leaderboard(runs, direction=context.objective.direction):
        has_checkpoint = (context.paths.trials_dir / row.run.id / CHECKPOINT_FILE).exists()
        if row.run.id not in parents and has_checkpoint and row.status == row.run.status:
            yield row.run


def request_continuations(
    context: SearchContext, budget: int, chosen: Sequence[Run], **fields: Any
) -> SearchContext:
    """Raise the budget of a search and request that trials train on, which a session then does.

    Args:
        context: the search.
        budget: its new budget.
        chosen: trials that train on.
        fields: more of its record that changes.

    Raises:
        UserError: if the space does not allow the budget, or limits of the search are used up.
    """
    record, points = context.record, _points(context)
    overrides = {**record.overrides, "budget": budget}
    with_overrides(context.search, {"budget": budget}).validate_space()
    count = sum(run.kind == "trial" for run in context.runs) + len(chosen)
    offset = len(informative_trials(context.runs))
    changed = {"overrides": overrides, "trials": count, "patience_offset": offset, **fields}
    check_limits_not_spent(context.changed(**changed))
    for run in chosen:
        append_request(context.event_log, "train-on", trial=run.id, point=points[run.number])
    context.event_log.append("extend", trials=count, budget=budget)
    return context.with_record(**changed)


def _points(context: SearchContext) -> list[dict[str, Any]]:
    """Parameter values of the trials, by number."""
    from hpsearch.search.study import open_study
    from hpsearch.search.trial_queue import started_trials

    study = open_study(context.paths.folder, search=context.search, url=context.record.study)
    return [trial.params for trial in started_trials(study.get_trials(deepcopy=False))]
