"""Ends trials that hang: in native code, on a lock, on a disk that does not answer.

How long a trial may say nothing follows from what the trials of the search have done: many times
the longest silence that one of them has broken. So nobody needs to know what a report costs, and a
slow trial is not taken for a dead one.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import tune

from hpsearch.execution.retry_policy import RetryPolicy

TIMEOUT_FACTOR = 10
"""A trial may be silent so many times as long as any that then spoke."""
MIN_TIMEOUT_S = 30 * 60.0
"""Seconds that it may always be silent."""
FIRST_REPORT_TIMEOUT_S = 24 * 60 * 60.0
"""Seconds before its first report, for which it may have to train a denoiser; nothing that others
did tells how long that takes."""
MAX_TICK_S = 10.0
"""Seconds between two looks that count; a driver that slept longer has not been listening."""


@dataclass
class ReportTimeouts:
    """How long each trial has said nothing, and how long it may.

    Args:
        report_timeout: seconds that any trial may be silent; None to judge by the others.
    """

    report_timeout: float | None = None
    longest_gap: float = 0.0
    """Seconds: the longest silence between two reports that a report has ended."""
    longest_first_gap: float = 0.0
    """Seconds: the same, from a trial's start to its first report."""
    _elapsed: dict[str, float] = field(default_factory=dict)
    _first_gaps: dict[str, float] = field(default_factory=dict)
    """Seconds before the first report, of trials that have made one: their own pace."""

    def load_history(self, events: Iterable[Mapping[str, Any]]) -> None:
        """What earlier sessions took between two reports of a trial, by the ledger."""
        before: dict[str, float] = {}
        for event in events:
            if event["event"] == "report":
                seconds = event.get("seconds", 0.0)
                self.longest_gap = max(self.longest_gap, seconds - before.get(event["trial"], 0.0))
                before[event["trial"]] = seconds

    def start(self, trial: str) -> None:
        """A trial starts."""
        self._elapsed[trial] = 0.0

    def record_report(self, trial: str) -> None:
        """A report came."""
        if trial in self._first_gaps:
            self.longest_gap = max(self.longest_gap, self._elapsed[trial])
        else:
            self._first_gaps[trial] = self._elapsed[trial]
            self.longest_first_gap = max(self.longest_first_gap, self._elapsed[trial])
        self._elapsed[trial] = 0.0

    def finish(self, trial: str) -> None:
        """Nothing more is expected of a trial."""
        self._elapsed.pop(trial, None)

    def advance(self, seconds: float) -> dict[str, float]:
        """Time has passed; the trials that hang, with the seconds that they have been silent."""
        for trial in self._elapsed:
            self._elapsed[trial] += min(seconds, MAX_TICK_S)
        return {t: silent for t, silent in self._elapsed.items() if silent > self.timeout(t)}

    def timeout(self, trial: str) -> float:
        """Seconds that a trial may be silent now."""
        if self.report_timeout is not None:
            return self.report_timeout
        if trial in self._first_gaps:
            return max(
                MIN_TIMEOUT_S, TIMEOUT_FACTOR * max(self.longest_gap, self._first_gaps[trial])
            )
        return max(
            FIRST_REPORT_TIMEOUT_S, TIMEOUT_FACTOR * max(self.longest_gap, self.longest_first_gap)
        )


class HangDetector(tune.Callback):
    """Kills the worker of a trial that hangs; Tune then takes the trial for failed."""

    def __init__(
        self,
        silence: ReportTimeouts,
        retry_policy: RetryPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeouts, self._retry_policy, self._clock = silence, retry_policy, clock
        self._ticked_at = clock()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A worker begins with a trial; before that it waited for room, and did not hang."""
        self._timeouts.start(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """A report came; what else a trial says tells nothing of its pace."""
        if "objective" in result:
            self._timeouts.record_report(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial ended."""
        self._timeouts.finish(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial failed."""
        self._timeouts.finish(trial.trial_id)

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """Tune looks around, several times a second."""
        now = self._clock()
        hanging = self._timeouts.advance(now - self._ticked_at)
        self._ticked_at = now
        if not hanging:
            return
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            if trial.trial_id in hanging and actor is not None:
                seconds = hanging[trial.trial_id]
                self._retry_policy.mark_failed(
                    trial.trial_id, f"it hung: no report for {seconds:,.0f} s"
                )
                self._timeouts.finish(trial.trial_id)
                ray.kill(actor)
