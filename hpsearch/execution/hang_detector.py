"""Hang detection: trials stuck in native code, on a lock, or on a disk that does not answer.

The timeout follows from the trials of the search: it is many times the longest gap between two of
their reports. So no user has to know how long a report takes, and a slow trial is not mistaken for
one that hangs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TIMEOUT_FACTOR = 10
"""Timeout, in longest gaps between two reports."""
MIN_TIMEOUT_S = 30 * 60.0
"""Shortest timeout, in seconds."""
FIRST_REPORT_TIMEOUT_S = 24 * 60 * 60.0
"""Shortest timeout before the first report, in seconds: it may need a denoiser, whose training can
take any time."""
MAX_TICK_S = 10.0
"""Longest step of time, in seconds: a driver that slept longer has not read the reports."""


@dataclass
class ReportTimeouts:
    """Seconds since the last report of each trial, and its timeout.

    Args:
        report_timeout: in seconds, for all trials; None to derive it from the gaps so far.
    """

    report_timeout: float | None = None
    longest_gap: float = 0.0
    """Longest gap between two reports of a trial, in seconds."""
    longest_first_gap: float = 0.0
    """Longest gap between the start of a trial and its first report, in seconds."""
    _elapsed: dict[str, float] = field(default_factory=dict)
    _first_gaps: dict[str, float] = field(default_factory=dict)
    """Seconds before the first report of each trial that has made one."""

    def load_history(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Load the gaps of earlier sessions from the event log."""
        before: dict[str, float] = {}
        for event in events:
            if event["event"] == "report":
                seconds = event.get("seconds", 0.0)
                self.longest_gap = max(self.longest_gap, seconds - before.get(event["trial"], 0.0))
                before[event["trial"]] = seconds

    def start(self, trial: str) -> None:
        """Record the start of a trial."""
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
        """Stop waiting for reports of a trial."""
        self._elapsed.pop(trial, None)

    def advance(self, seconds: float) -> dict[str, float]:
        """Let time pass; return the trials that hang, with the seconds since their last report."""
        for trial in self._elapsed:
            self._elapsed[trial] += min(seconds, MAX_TICK_S)
        return {t: silent for t, silent in self._elapsed.items() if silent > self.timeout(t)}

    def timeout(self, trial: str) -> float:
        """Return the timeout of a trial now, in seconds."""
        if self.report_timeout is not None:
            return self.report_timeout
        if trial in self._first_gaps:
            return max(
                MIN_TIMEOUT_S, TIMEOUT_FACTOR * max(self.longest_gap, self._first_gaps[trial])
            )
        return max(
            FIRST_REPORT_TIMEOUT_S, TIMEOUT_FACTOR * max(self.longest_gap, self.longest_first_gap)
        )
