"""Ends trials that hang: in native code, on a lock, on a disk that does not answer.

How long a trial may say nothing follows from what the trials of the search have done: many times
the longest silence that one of them has broken. So nobody needs to know what a report costs, and a
slow trial is not taken for a dead one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
        """Record a report; one that arrives after the trial was given up changes nothing."""
        if trial not in self._elapsed:
            return
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
