"""What a search may cost, and what it has cost, by its ledger."""

import time
from typing import Any

from pydantic import Field

from hpsearch.config.base import Setting
from hpsearch.tracking.ledger import Ledger


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
