"""Stopping criteria: limits of time and compute, and patience."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from hpsearch.config.base import FrozenConfig
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import Values, run_values, weakly_dominates
from hpsearch.search.search import Search
from hpsearch.search.trial_queue import started_trials
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.run_state import UNFINISHED, Run


class Limits(FrozenConfig):
    """Limits of a search; None for no limit. At a limit, running trials are interrupted."""

    seconds: float | None = Field(default=None, gt=0)
    """Wall-clock seconds of one session; a resumed search starts from 0."""
    patches: int | None = Field(default=None, ge=1)
    """Patches trained in all trials and sessions."""
    gpu_seconds: float | None = Field(default=None, gt=0)
    """GPU seconds of all trials and sessions: seconds times the GPUs that a trial held."""


class UsageTracker:
    """Tracker of the resources used in a search, by its event log; created per session."""

    def __init__(self, limits: Limits, event_log: EventLog) -> None:
        self._limits, self._event_log, self._offset = limits, event_log, 0
        self._is_limited = limits != Limits()
        self._started_at = time.monotonic()
        self._gpus: dict[str, float] = {}
        self._patches: dict[str, int] = {}
        """Patches seen by each trial, those of the trial that it trains on included."""
        self._seconds: dict[str, float] = {}
        self.gpu_seconds = 0.0
        self.patches = 0
        """Patches trained by all trials, without baselines."""

    def exceeded_limit(self) -> str:
        """Description of the limit that is reached; empty if none is."""
        if not self._is_limited:
            return ""
        events, self._offset = self._event_log.read(self._offset)
        for event in events:
            self._apply(event)
        limits = self._limits
        if limits.seconds is not None and time.monotonic() - self._started_at >= limits.seconds:
            return f"{limits.seconds:g} seconds"
        if limits.patches is not None and self.patches >= limits.patches:
            return f"{limits.patches:,} patches"
        if limits.gpu_seconds is not None and self.gpu_seconds >= limits.gpu_seconds:
            return f"{limits.gpu_seconds:g} GPU-seconds"
        return ""

    def _apply(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "start" if event.get("kind", "trial") == "trial":
                parent = event.get("drawn", {}).get("parent")
                self._patches.setdefault(event["trial"], self._patches.get(parent, 0))
                self._gpus[event["trial"]] = event.get("allocation", {}).get("gpus", 0.0)
            case "report" if event["trial"] in self._patches:
                trial, seconds = event["trial"], event.get("seconds", 0.0)
                new = max(0, event["seen"] - self._patches[trial])
                self._patches[trial] += new
                self.patches += new
                spent = max(0.0, seconds - self._seconds.get(trial, 0.0))
                self.gpu_seconds += self._gpus[trial] * spent
                self._seconds[trial] = seconds


UNINFORMATIVE_STATUSES = (*UNFINISHED, "failed")
"""Statuses that do not depend on a trial's configuration."""
FINISH_ORDER_ATTR = "ended"
"""User attribute of an Optuna trial: finish order (from 1), independent of the clock."""


def trials_without_improvement(
    outcomes: Iterable[Values | None], objectives: Sequence[Objective], *, patience_offset: int = 0
) -> int:
    """Count the latest trials that ended in a row without an improvement.

    A trial is an improvement if no earlier one is at least as good in all objectives.

    Args:
        outcomes: objectives of the trials in order of their end; None for a pruned or collapsed
            trial.
        objectives: objectives of the search.
        patience_offset: number of trials from the first that are not counted, but that later
            trials are compared with.
    """
    since, total, best = patience_offset, 0, list[Values]()
    for total, values in enumerate(outcomes, 1):
        if values is not None and not any(
            weakly_dominates(other, values, objectives) for other in best
        ):
            since, best = max(since, total), [*best, values]
    return max(0, total - since)


def is_out_of_patience(
    ended: Iterable[tuple[str, Values | None]], search: Search, *, patience_offset: int = 0
) -> bool:
    """Decide whether a search stops because its latest trials have not improved on it.

    Args:
        ended: status and objectives of the trials in the order in which they ended. Those that
            failed or were interrupted are not counted: machines fail, not configurations.
        search: its patience and its objectives.
        patience_offset: so many, from the first on, are not counted either.
    """
    if search.patience is None:
        return False
    values = (
        values if status == "completed" else None
        for status, values in ended
        if status not in UNINFORMATIVE_STATUSES
    )
    return (
        trials_without_improvement(values, search.objectives, patience_offset=patience_offset)
        >= search.patience
    )


def study_is_out_of_patience(
    trials: Iterable[FrozenTrial], search: Search, *, patience_offset: int = 0
) -> bool:
    """Apply :func:`is_out_of_patience` to the trials of a study."""
    if search.patience is None:
        return False
    ended = [trial for trial in started_trials(trials) if trial.state.is_finished()]
    ended.sort(
        key=lambda t: (t.user_attrs.get(FINISH_ORDER_ATTR, 0), t.datetime_complete, t.number)
    )
    endings = ((_status_of(trial), _values_of(trial)) for trial in ended)
    return is_out_of_patience(endings, search, patience_offset=patience_offset)


def runs_are_out_of_patience(
    runs: Iterable[Run], search: Search, *, patience_offset: int = 0
) -> bool:
    """Apply :func:`is_out_of_patience` to the runs of an event log."""
    endings = ((run.status, run_values(run, search.objectives)) for run in informative_trials(runs))
    return is_out_of_patience(endings, search, patience_offset=patience_offset)


def informative_trials(runs: Iterable[Run]) -> list[Run]:
    """Trials whose end depends on their configuration, in the order in which they ended."""
    ended = [
        run for run in runs if run.kind == "trial" and run.status not in UNINFORMATIVE_STATUSES
    ]
    return sorted(ended, key=lambda run: (run.ended or 0.0, run.number))


def _status_of(trial: FrozenTrial) -> str:
    """Status of a finished trial, as far as patience distinguishes them."""
    match trial.state:
        case TrialState.FAIL:
            return "failed"
        case TrialState.PRUNED:
            return "pruned"
    collapsed = any(value > 0 for value in trial.constraints.values())
    return "collapsed" if collapsed else "completed"


def _values_of(trial: FrozenTrial) -> Values | None:
    return tuple(trial.values) if trial.state == TrialState.COMPLETE else None
