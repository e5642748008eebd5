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

from hpsearch.execution.retry_policy import Lives

TIMES = 10
"""A trial may be silent so many times as long as any that then spoke."""
LEAST = 30 * 60.0
"""Seconds that it may always be silent."""
FIRST = 24 * 60 * 60.0
"""Seconds before its first report, for which it may have to train a denoiser; nothing that others
did tells how long that takes."""
BLINK = 10.0
"""Seconds between two looks that count; a driver that slept longer has not been listening."""


@dataclass
class Silence:
    """How long each trial has said nothing, and how long it may.

    Args:
        hang_after: seconds that any trial may be silent; None to judge by the others.
    """

    hang_after: float | None = None
    longest: float = 0.0
    """Seconds: the longest silence between two reports that a report has ended."""
    longest_first: float = 0.0
    """Seconds: the same, from a trial's start to its first report."""
    _silent: dict[str, float] = field(default_factory=dict)
    _first: dict[str, float] = field(default_factory=dict)
    """Seconds before the first report, of trials that have made one: their own pace."""

    def learn(self, events: Iterable[Mapping[str, Any]]) -> None:
        """What earlier sessions took between two reports of a trial, by the ledger."""
        before: dict[str, float] = {}
        for event in events:
            if event["event"] == "report":
                seconds = event.get("seconds", 0.0)
                self.longest = max(self.longest, seconds - before.get(event["trial"], 0.0))
                before[event["trial"]] = seconds

    def began(self, trial: str) -> None:
        """A trial starts."""
        self._silent[trial] = 0.0

    def spoke(self, trial: str) -> None:
        """A report came."""
        if trial in self._first:
            self.longest = max(self.longest, self._silent[trial])
        else:
            self._first[trial] = self._silent[trial]
            self.longest_first = max(self.longest_first, self._silent[trial])
        self._silent[trial] = 0.0

    def ended(self, trial: str) -> None:
        """Nothing more is expected of a trial."""
        self._silent.pop(trial, None)

    def passed(self, seconds: float) -> dict[str, float]:
        """Time has passed; the trials that hang, with the seconds that they have been silent."""
        for trial in self._silent:
            self._silent[trial] += min(seconds, BLINK)
        return {t: silent for t, silent in self._silent.items() if silent > self.allowed(t)}

    def allowed(self, trial: str) -> float:
        """Seconds that a trial may be silent now."""
        if self.hang_after is not None:
            return self.hang_after
        if trial in self._first:
            return max(LEAST, TIMES * max(self.longest, self._first[trial]))
        return max(FIRST, TIMES * max(self.longest, self.longest_first))


class Watchdog(tune.Callback):
    """Kills the worker of a trial that hangs; Tune then takes the trial for failed."""

    def __init__(
        self, silence: Silence, lives: Lives, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._silence, self._lives, self._clock = silence, lives, clock
        self._looked = clock()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A worker begins with a trial; before that it waited for room, and did not hang."""
        self._silence.began(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """A report came; what else a trial says tells nothing of its pace."""
        if "objective" in result:
            self._silence.spoke(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial ended."""
        self._silence.ended(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial failed."""
        self._silence.ended(trial.trial_id)

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """Tune looks around, several times a second."""
        now = self._clock()
        hanging = self._silence.passed(now - self._looked)
        self._looked = now
        if not hanging:
            return
        for trial in trials:
            actor = trial.temporary_state.ray_actor
            if trial.trial_id in hanging and actor is not None:
                seconds = hanging[trial.trial_id]
                self._lives.give_up(trial.trial_id, f"it hung: no report for {seconds:,.0f} s")
                self._silence.ended(trial.trial_id)
                ray.kill(actor)
