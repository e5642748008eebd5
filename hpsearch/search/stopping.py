"""Stopping criteria: limits of time and compute, and patience."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from hpsearch.config.base import Setting
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import Values, covers, run_values
from hpsearch.search.search import Search
from hpsearch.search.trial_queue import begun
from hpsearch.tracking.event_log import Ledger
from hpsearch.tracking.run_state import Run


class Limits(Setting):
    """After which no trial goes on; None for no limit. Trials that then run are interrupted."""

    seconds: float | None = Field(default=None, gt=0)
    """Wall time of one session: a resumed search has as much again."""
    patches: int | None = Field(default=None, ge=1)
    """Patches trained over all trials and sessions."""
    gpu_seconds: float | None = Field(default=None, gt=0)
    """Seconds over all trials and sessions, each times the GPUs that the trial held."""


class Meter:
    """Follows the ledger and says when a limit is reached; made at the start of a session."""

    def __init__(self, limits: Limits, ledger: Ledger) -> None:
        self._limits, self._ledger, self._offset = limits, ledger, 0
        self._began = time.monotonic()
        self._gpus: dict[str, float] = {}
        self._patches: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self.gpu_seconds = 0.0

    @property
    def patches(self) -> int:
        """Patches trained by all trials; yardsticks are not of the search."""
        return sum(self._patches.values())

    def reached(self) -> str:
        """The limit that is reached, in words; empty if none is."""
        if self._limits == Limits():
            return ""
        events, self._offset = self._ledger.read(self._offset)
        for event in events:
            self._take(event)
        limits = self._limits
        if limits.seconds is not None and time.monotonic() - self._began >= limits.seconds:
            return f"{limits.seconds:g} seconds"
        if limits.patches is not None and self.patches >= limits.patches:
            return f"{limits.patches:,} patches"
        if limits.gpu_seconds is not None and self.gpu_seconds >= limits.gpu_seconds:
            return f"{limits.gpu_seconds:g} GPU-seconds"
        return ""

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "start" if event.get("kind", "trial") == "trial":
                self._patches.setdefault(event["trial"], 0)
                self._gpus[event["trial"]] = event.get("place", {}).get("gpus", 0.0)
            case "report" if event["trial"] in self._patches:
                trial, seconds = event["trial"], event.get("seconds", 0.0)
                self._patches[trial] = max(self._patches[trial], event["seen"])
                spent = max(0.0, seconds - self._seconds.get(trial, 0.0))
                self.gpu_seconds += self._gpus[trial] * spent
                self._seconds[trial] = seconds


ENDED = "ended"
"""User attribute of an Optuna trial: the how manyth it was to end, whatever the clock said."""


def fruitless(
    endings: Iterable[Values | None], objectives: Sequence[Objective], *, forgiven: int = 0
) -> int:
    """How many trials in a row have ended without an improvement.

    A trial improves if none before it is at least as good in all objectives.

    Args:
        endings: objectives of the trials in the order in which they ended; None for one that was
            pruned or collapsed.
        forgiven: so many, from the first on, are not counted; what comes must still beat them.
    """
    since, total, best = forgiven, 0, list[Values]()
    for total, values in enumerate(endings, 1):
        if values is not None and not any(covers(other, values, objectives) for other in best):
            since, best = max(since, total), [*best, values]
    return max(0, total - since)


def study_is_out_of_patience(
    trials: Iterable[FrozenTrial], search: Search, *, forgiven: int = 0
) -> bool:
    """By the study; failures of machines say nothing, so they do not count."""
    if search.patience is None:
        return False
    ended = [t for t in begun(trials) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    ended.sort(key=lambda t: (t.user_attrs.get(ENDED, 0), t.datetime_complete, t.number))
    values = map(_values, ended)
    return fruitless(values, search.objectives, forgiven=forgiven) >= search.patience


def runs_are_out_of_patience(runs: Iterable[Run], search: Search, *, forgiven: int = 0) -> bool:
    """The same by the ledger."""
    if search.patience is None:
        return False
    endings = (run_values(run, search.objectives) for run in telling(runs))
    return fruitless(endings, search.objectives, forgiven=forgiven) >= search.patience


def telling(runs: Iterable[Run]) -> list[Run]:
    """Trials whose end says something of their configuration, in the order in which they ended."""
    silent = ("running", "failed", "interrupted")
    ended = [run for run in runs if run.kind == "trial" and run.status not in silent]
    return sorted(ended, key=lambda run: (run.ended or 0.0, run.number))


def _values(trial: FrozenTrial) -> Values | None:
    collapsed = any(value > 0 for value in trial.constraints.values())
    if trial.state != TrialState.COMPLETE or collapsed:
        return None
    return tuple(trial.values)
