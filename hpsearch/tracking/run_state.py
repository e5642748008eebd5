"""A run: one trial as people see it, put together from the ledger."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, get_args

from hpsearch.config import TrialConfig
from hpsearch.tracking.event_log import Event, EventLog
from hpsearch.untrusted import reading

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
    restarted_attempts: tuple[int, ...] = ()
    """Attempts, from 0, that began from nothing because what was saved had been damaged."""
    retrained_patches: int = 0
    """Patches that were trained a second time, as reports that came a second time tell."""
    attempt_seen: int = 0
    """Patches seen at the last report of this attempt, which may stand before ``seen``."""
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
    search_state = SearchState()
    for event in events:
        search_state.apply(event)
    return search_state.ordered_runs


class BestSoFar(NamedTuple):
    """The best objective of a completed trial, once so many trials had ended."""

    value: float
    ended: int
    time: float


@dataclass
class SearchState:
    """What a ledger has told so far."""

    search_event: Event | None = None
    finish_event: Event | None = None
    """None again when a search that was interrupted goes on."""
    runs: dict[str, Run] = field(default_factory=dict)
    """By id, in the order of their start."""
    best: list[BestSoFar] = field(default_factory=list)

    @property
    def ordered_runs(self) -> list[Run]:
        """Runs by number."""
        return sorted(self.runs.values(), key=lambda run: run.number)

    def apply(self, event: Event) -> None:
        """Take in one more event.

        Raises:
            UserError: if it is none of a search, or comes before the start of its trial.
        """
        with reading(
            f"event {event['event']!r} in ledger.jsonl",
            "event",
            "restore the file from a copy, or begin a new search",
        ):
            self._hear(event)

    def _hear(self, event: Event) -> None:
        match event["event"]:
            case "search":
                self.search_event = event
            case "finish":
                self.finish_event = event
        if "trial" not in event:
            return
        run = apply_event(self.runs.get(event["trial"]), event)
        self.runs[event["trial"]] = run
        if run.kind != "trial":
            return
        if event["event"] == "start":
            self.finish_event = None
        if event["event"] == "end" and run.status != "interrupted":
            self._note_best(event["time"])

    def _note_best(self, time: float) -> None:
        trials = [run for run in self.runs.values() if run.kind == "trial"]
        ended = [run for run in trials if run.status not in ("running", "interrupted")]
        done = [run for run in ended if run.status == "completed" and run.reports]
        values = [run.reports[-1]["objective"] for run in done]
        if values and len(ended) > (self.best[-1].ended if self.best else 0):
            lowest = (
                self.search_event is not None and self.search_event.get("direction") == "minimize"
            )
            self.best.append(BestSoFar((min if lowest else max)(values), len(ended), time))


class SearchStateReader:
    """Reader of a search's state that takes in only what its event log has gained since.

    Several threads may use it.

    Args:
        event_log: the event log to follow.
    """

    def __init__(self, event_log: EventLog) -> None:
        self._event_log, self._lock = event_log, threading.Lock()
        self._state, self._offset = SearchState(), 0

    def read(self) -> SearchState:
        """State after all whole lines of the event log; later reads do not change it.

        Raises:
            UserError: if the event log is damaged, or a newer hpsearch began it.
        """
        with self._lock:
            try:
                events, offset = self._event_log.read(self._offset)
                for event in events:
                    self._state.apply(event)
            except BaseException:
                self._state, self._offset = SearchState(), 0
                raise
            self._offset = offset
            state = self._state
            return replace(state, runs=dict(state.runs), best=list(state.best))


def apply_event(run: Run | None, event: Event) -> Run:
    """The run after one more event."""
    if run is None:
        if event["event"] != "start":
            raise ValueError(f"trial {event['trial']} has not started before it")
        config = TrialConfig.model_validate(event["config"])
        kind = event.get("kind", "trial")
        return Run(event["trial"], event["number"], config, event["time"], kind=kind)
    match event["event"]:
        case "start":  # after a crash: the same trial goes on
            return replace(
                run,
                status="running",
                reason="",
                ended=None,
                retries=run.retries + 1,
                attempt_seen=0,
            )
        case "anew":
            return replace(run, restarted_attempts=(*run.restarted_attempts, run.retries))
        case "report":
            return _apply_report(run, event)
        case "end":
            status, reason = event["status"], event.get("reason", "")
            if status not in get_args(RunStatus):
                raise ValueError(f"no trial ends as {status[:40]!r}")
            return replace(run, status=status, reason=reason, ended=event["time"])
    return run


def _apply_report(run: Run, event: Event) -> Run:
    """One that goes on from its checkpoint first says its last report again: nothing is lost."""
    seen, reports = event["seen"], run.reports
    _ = event["objective"], event["metrics"]
    goes_on = run.retries > 0 and run.attempt_seen == 0 and seen >= run.seen
    goes_on = goes_on and run.retries not in run.restarted_attempts
    lost = 0 if goes_on else max(0, min(seen, run.seen) - run.attempt_seen)
    if seen > run.seen:
        reports = (*reports, event)
    return replace(
        run,
        reports=reports,
        retrained_patches=run.retrained_patches + lost,
        attempt_seen=max(run.attempt_seen, seen),
    )


def group_by_config(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs of one configuration together, whatever their training seed; in order of first number.

    The mean of such a group is what its configuration is worth; the best of it is luck.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = run.config.model_copy(update={"seed": 0}).model_dump_json()
        groups.setdefault(same, []).append(run)
    return list(groups.values())
