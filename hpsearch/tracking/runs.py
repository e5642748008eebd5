"""A run: one trial as people see it, put together from the ledger."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from hpsearch.config import TrialConfig
from hpsearch.tracking.ledger import Event

RunStatus = Literal[
    "running", "completed", "pruned", "collapsed", "diverged", "failed", "interrupted"
]


@dataclass(frozen=True)
class Run:
    """One trial: its configuration, how it ended, and what it reported."""

    id: str
    number: int
    config: TrialConfig
    started: float
    """Seconds since 1970."""
    status: RunStatus = "running"
    reason: str = ""
    reports: tuple[Event, ...] = ()
    """Report events in order of patches seen, one for each number of patches."""
    ended: float | None = None
    retries: int = 0
    kind: str = "trial"
    """``trial``, or ``yardstick`` for a run that a trial is compared with."""

    @property
    def label(self) -> str:
        """Short name: the trial's number, or what the yardstick is."""
        return f"{self.number:03d}" if self.kind == "trial" else self.id

    @property
    def seen(self) -> int:
        """Patches seen at the last report."""
        return self.reports[-1]["seen"] if self.reports else 0

    @property
    def last(self) -> dict[str, float]:
        """Metrics of the last report."""
        return self.reports[-1]["metrics"] if self.reports else {}

    def metric(self, name: str) -> float | None:
        """A metric of the last report."""
        return self.last.get(name)

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Patches seen, and the metric there."""
        points = [(r["seen"], r["metrics"][name]) for r in self.reports if name in r["metrics"]]
        return [seen for seen, _ in points], [value for _, value in points]


def runs_from(events: Iterable[Event]) -> list[Run]:
    """All runs of a search, by number."""
    runs: dict[str, Run] = {}
    for event in events:
        if "trial" in event:
            runs[event["trial"]] = advance(runs.get(event["trial"]), event)
    return sorted(runs.values(), key=lambda run: run.number)


def advance(run: Run | None, event: Event) -> Run:
    """The run after one more event."""
    if run is None:
        assert event["event"] == "start", f"the first event of a trial is its start, not {event}"
        config = TrialConfig.model_validate(event["config"])
        kind = event.get("kind", "trial")
        return Run(event["trial"], event["number"], config, event["time"], kind=kind)
    match event["event"]:
        case "start":  # after a crash: the same trial goes on
            return replace(run, status="running", reason="", ended=None, retries=run.retries + 1)
        case "report" if event["seen"] > run.seen:
            return replace(run, reports=(*run.reports, event))
        case "end":
            status, reason = event["status"], event.get("reason", "")
            return replace(run, status=status, reason=reason, ended=event["time"])
    return run
