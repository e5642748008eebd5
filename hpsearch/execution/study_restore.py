"""Reconciliation of a study with the event log, and its restoration, since it is a projection.

A ``start`` event holds the point of its trial (``drawn``), and the events after it everything else
that the study has. Trials that were started by hpsearch 0.1.0 have no point in the event log.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpsearch.errors import UserError
from hpsearch.execution.optuna_searcher import OUTCOME_ATTR
from hpsearch.execution.worker_messages import Reported, objective_values
from hpsearch.search.constraints import trial_violations
from hpsearch.search.outcome import COLLAPSE_STATUSES
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.space_errors import translate_study_errors
from hpsearch.search.stopping import FINISH_ORDER_ATTR
from hpsearch.search.study import (
    check_study_complete,
    num_own_trials,
    open_study,
    open_study_storage,
    running_trial,
    study_address,
)
from hpsearch.search.trial_queue import (
    PARENT_ATTR,
    POINT_ATTR,
    REPEAT_ATTR,
    REQUEST_ATTR,
    format_trial_id,
    started_trials,
)
from hpsearch.search.warm_start import start_warm
from hpsearch.tracking.run_state import UNFINISHED, Run

PAUSED_REASON = "paused, and not expected to become the best"
"""Reason of a trial that was paused when a search ended."""
STATES = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
"""States of trials in the study by status, if not COMPLETE or RUNNING."""


def reconcile(context: SearchContext) -> None:
    """Append to the event log the ends that only the study has.

    The end of a trial is written to the study first, so a driver that dies may not have written
    it to the event log.

    Raises:
        UserError: if the study lacks trials of the event log.
    """
    check_study_complete(context)
    runs = {run.id: run for run in context.runs}
    study = open_study(context.paths.folder, search=context.search, url=context.record.study)
    for number, trial in enumerate(started_trials(study.get_trials(deepcopy=False))):
        run = runs.get(format_trial_id(number))
        if run and trial.state.is_finished() and run.status in UNFINISHED:
            context.event_log.append("trial_finished", trial=run.id, **_end_event(trial))


def _end_event(trial: FrozenTrial) -> dict[str, str]:
    if trial.state == TrialState.FAIL:
        return {"status": "failed", "reason": "the driver died before it could report why"}
    attributes = trial.user_attrs
    return {"status": attributes[OUTCOME_ATTR], "reason": attributes.get("reason", "")}


def restore_study(context: SearchContext) -> int:
    """Add what a study lacks of the event log: trials, reports and ends.

    The study is created if it is missing. Trials of a warm start are added again if their search
    still exists.

    Returns:
        Number of trials that were added or ended.

    Raises:
        UserError: if another process runs the search, the storage fails, or the event log does not
            hold the parameters of a missing trial.
    """
    runs = sorted((run for run in context.runs if run.kind == "trial"), key=lambda r: r.number)
    with translate_study_errors(study_address(context.paths.folder, context.record.study)):
        if not runs or not _is_behind(context, runs):
            return 0
        with context.lock():
            return _restore(context, runs)


def end_in_study(context: SearchContext) -> None:
    """End the trials in the study that have ended in the event log alone, as paused ones do."""
    runs = sorted((run for run in context.runs if run.kind == "trial"), key=lambda r: r.number)
    if runs and _stale(_own_trials(context), runs):
        _restore(context, runs)


def end_paused_trials(context: SearchContext) -> int:
    """Record that paused trials are not trained any more: pruned at their last value.

    Returns:
        Number of trials that were paused.
    """
    paused = [run for run in context.runs if run.status == "paused"]
    for run in paused:
        fields = {"status": "pruned", "reason": PAUSED_REASON}
        context.event_log.append("trial_finished", trial=run.id, **fields)
    end_in_study(context)
    return len(paused)


def _is_behind(context: SearchContext, runs: Sequence[Run]) -> bool:
    if num_own_trials(context) <= runs[-1].number:
        return True
    return bool(_stale(_own_trials(context), runs))


def _own_trials(context: SearchContext) -> list[FrozenTrial]:
    study = open_study(context.paths.folder, search=context.search, url=context.record.study)
    return started_trials(study.get_trials(deepcopy=False))


def _stale(trials: Sequence[FrozenTrial], runs: Sequence[Run]) -> list[Run]:
    """Runs that ended, but have not in the study."""
    return [
        run
        for run in runs
        if run.number < len(trials)
        and run.status not in UNFINISHED
        and not trials[run.number].state.is_finished()
    ]


def _restore(context: SearchContext, runs: Sequence[Run]) -> int:
    folder, url, search = context.paths.folder, context.record.study, context.search
    before = _own_trials(context)
    if context.record.warm_start_from and not before:
        with suppress(UserError):  # the earlier search is gone
            start_warm(context)
    storage, study = open_study_storage(folder, url), open_study(folder, search=search, url=url)
    first = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    wanted = _wanted_trials(context, runs, len(before), first - _num_finished(before))
    for run in _stale(before, runs):
        trial = running_trial(study, storage, before[run.number].number)
        _finish(study, trial, wanted[run.number])
    added = [wanted[number] for number in range(len(before), runs[-1].number + 1)]
    study.add_trials(added)
    return len(added) + len(_stale(before, runs))


def _num_finished(trials: Sequence[FrozenTrial]) -> int:
    return sum(trial.state.is_finished() for trial in trials)


def _wanted_trials(
    context: SearchContext, runs: Sequence[Run], known: int, imported: int
) -> dict[int, FrozenTrial]:
    """Trials as the event log has them, by number; those that it lacks wait for their point."""
    points = {
        event["trial"]: event["drawn"]
        for event in context.event_log.events()
        if event["event"] == "start" and "drawn" in event
    }
    lost = [run.id for run in runs if run.number >= known and run.id not in points]
    if lost:
        raise UserError(
            f"the event log of search {context.name!r} has no parameters of trial {lost[0]}, which "
            "an earlier version of hpsearch started; restore the study from a copy",
            code="study-not-restorable",
        )
    ended = [run for run in runs if run.status not in UNFINISHED]
    ended.sort(key=lambda run: (run.ended or 0.0, run.number))
    order = {run.number: imported + place for place, run in enumerate(ended, 1)}
    found = {number: create_trial(state=TrialState.RUNNING) for number in range(runs[-1].number)}
    for run in runs:
        point = points.get(run.id, {})
        found[run.number] = _frozen(run, point, context.search, order.get(run.number))
    return found


def _frozen(run: Run, point: Mapping[str, Any], search: Search, order: int | None) -> FrozenTrial:
    """Trial of the study with everything that the event log has of a run."""
    reports = () if search.extra_objectives else run.reports
    state, values, status = TrialState.RUNNING, None, run.status
    if order is not None:
        values = None if status == "failed" else objective_values(_last_message(run), search)
        status = "failed" if values is None else status
        state = STATES.get(status, TrialState.COMPLETE)
    has_value = state in (TrialState.COMPLETE, TrialState.PRUNED)
    if not has_value or (state == TrialState.PRUNED and search.extra_objectives):
        values = None
    attributes = {
        **{
            name: point[name]
            for name in (POINT_ATTR, REPEAT_ATTR, REQUEST_ATTR, PARENT_ATTR)
            if point.get(name) is not None
        },
        "seed": run.config.seed,
        "config": run.config.model_dump(mode="json"),
    }
    if order is not None:
        attributes |= {FINISH_ORDER_ATTR: order, OUTCOME_ATTR: status, "reason": run.reason}
    trial = create_trial(
        state=state,
        values=values,
        params=point.get("params", {}),
        distributions={
            name: json_to_distribution(json.dumps(distribution))
            for name, distribution in point.get("distributions", {}).items()
        },
        user_attrs=attributes,
        intermediate_values={r["seen"]: r["objective"] for r in reports},
        constraints=trial_violations(status, run.last, search.limits) if has_value else None,
    )
    trial.datetime_start = datetime.fromtimestamp(run.started)
    if order is not None:
        trial.datetime_complete = datetime.fromtimestamp(run.ended or run.started)
    return trial


def _last_message(run: Run) -> Reported | None:
    if not run.reports:
        return None
    last, lost = run.reports[-1], run.status in COLLAPSE_STATUSES
    return Reported(last["seen"], last["objective"], run.status, lost, metrics=last["metrics"])


def _finish(study: optuna.Study, trial: optuna.Trial, wanted: FrozenTrial) -> None:
    """End a trial that the study has as running."""
    known = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    for step, value in wanted.intermediate_values.items():
        if step not in known:
            trial.report(value, step)
    for name, value in wanted.user_attrs.items():
        trial.set_user_attr(name, value)
    for name, violation in wanted.constraints.items():
        trial.set_constraint(name, violation)
    if wanted.state == TrialState.COMPLETE:
        study.tell(trial, wanted.values)
    else:
        study.tell(trial, state=wanted.state)
