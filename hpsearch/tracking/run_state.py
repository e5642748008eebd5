"""State of runs and of a search, as a projection of the event log."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal, NamedTuple, get_args

from hpsearch.config import TrialConfig
from hpsearch.tracking.event_log import Event, EventLog
from hpsearch.untrusted import reading

RunStatus = Literal[
    "running",
    "paused",
    "completed",
    "infeasible",
    "pruned",
    "collapsed",
    "diverged",
    "failed",
    "interrupted",
]
UNFINISHED: tuple[RunStatus, ...] = ("running", "paused", "interrupted")
"""Statuses of runs that have not ended, or that a later session resumes."""


@dataclass(frozen=True)
class Run:
    """State of one trial: configuration, status, and reports."""

    id: str
    number: int
    config: TrialConfig
    started: float
    """Start time, seconds since 1970."""
    status: RunStatus = "running"
    reason: str = ""
    reports: tuple[Event, ...] = ()
    """Report events in order of patches seen, one per number of patches."""
    ended: float | None = None
    retries: int = 0
    pauses: int = 0
    """Resumes after a pause, which are not among the retries."""
    restarted_attempts: tuple[int, ...] = ()
    """Attempts (from 0) that restarted from scratch because the checkpoint was damaged."""
    retrained_patches: int = 0
    """Patches that were trained twice, derived from repeated reports."""
    attempt_seen: int = 0
    """Patches seen at the last report of this attempt, which may be below ``seen``."""
    parent: str | None = None
    """Id of the trial that this one trains on; None for one from scratch."""
    inherited: int = 0
    """Patches that the parent had seen at its end."""
    kind: str = "trial"
    """``trial``, or ``baseline`` for a run that a trial is compared with."""

    @property
    def label(self) -> str:
        """Short name: the trial's number, or the baseline's name."""
        return f"{self.number:03d}" if self.kind == "trial" else self.id

    @property
    def resumes(self) -> int:
        """Number of times that it was resumed, after a pause or a failure."""
        return self.retries + self.pauses

    @property
    def seen(self) -> int:
        """Patches seen at the last report."""
        return self.reports[-1]["seen"] if self.reports else 0

    @property
    def last(self) -> dict[str, float]:
        """Metrics of the last report; empty before the first."""
        return self.reports[-1]["metrics"] if self.reports else {}

    def metric(self, name: str) -> float | None:
        """Value of a metric in the last report."""
        return self.last.get(name)

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Learning curve: patches seen and the metric there."""
        points = [(r["seen"], r["metrics"][name]) for r in self.reports if name in r["metrics"]]
        return [seen for seen, _ in points], [value for _, value in points]


def runs_from(events: Iterable[Event]) -> list[Run]:
    """Build all runs of a search from its events, by number."""
    search_state = SearchState()
    for event in events:
        search_state.apply(event)
    return search_state.ordered_runs


class BestSoFar(NamedTuple):
    """Best objective of a completed trial after a number of trials had ended."""

    value: float
    ended: int
    time: float


@dataclass
class SearchState:
    """State of a search, built event by event."""

    search_event: Event | None = None
    finish_event: Event | None = None
    """Last event of the search; None while it runs, also after a resume."""
    steps_left: tuple[str, ...] = ()
    """Steps after the test scores that have not succeeded yet: registration, figures."""
    runs: dict[str, Run] = field(default_factory=dict)
    """Runs by id, in the order of their start."""
    best: list[BestSoFar] = field(default_factory=list)
    changed: dict[str, None] = field(default_factory=dict, repr=False, compare=False)
    """Ids of the runs that events have changed, in order; a reader may clear it."""
    _ended: set[str] = field(default_factory=set, repr=False, compare=False)
    """Ids of the trials that have ended."""
    _values: dict[str, float] = field(default_factory=dict, repr=False, compare=False)
    """Last objective of each completed trial, by id."""

    @property
    def ordered_runs(self) -> list[Run]:
        """Runs by number."""
        return sorted(self.runs.values(), key=lambda run: run.number)

    def apply(self, event: Event) -> None:
        """Apply one event.

        Raises:
            UserError: if the event is unknown, or comes before the start of its trial.
        """
        with reading(
            f"event {event['event']!r} in ledger.jsonl",
            "event",
            "restore the file from a copy, or start a new search",
        ):
            self._apply(event)

    def _apply(self, event: Event) -> None:
        match event["event"]:
            case "search":
                self.search_event = event
            case "search_finished":
                self.finish_event = event
                self.steps_left = tuple(event.get("steps", ()))
            case "step_finished":
                done = event["step"]
                self.steps_left = tuple(step for step in self.steps_left if step != done)
        if "trial" not in event:
            return
        run = apply_event(self.runs.get(event["trial"]), event)
        if run.parent in self.runs and not run.reports:
            run = replace(run, inherited=self.runs[run.parent].seen)
        self.runs[event["trial"]] = run
        self.changed[event["trial"]] = None
        if run.kind != "trial":
            return
        if event["event"] == "start":
            self.finish_event = None
        self._note_end(run)
        if event["event"] == "trial_finished" and run.status != "interrupted":
            self._note_best(event["time"])

    def _note_best(self, time: float) -> None:
        values, ended = self._values.values(), len(self._ended)
        if values and ended > (self.best[-1].ended if self.best else 0):
            lowest = (
                self.search_event is not None and self.search_event.get("direction") == "minimize"
            )
            self.best.append(BestSoFar((min if lowest else max)(values), ended, time))

    def _note_end(self, run: Run) -> None:
        """Note whether a trial has ended, and its value if it is completed."""
        self._ended.discard(run.id)
        self._values.pop(run.id, None)
        if run.status not in UNFINISHED:
            self._ended.add(run.id)
            if run.status == "completed" and run.reports:
                self._values[run.id] = run.reports[-1]["objective"]


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
    """Return a run after one more event."""
    if run is None:
        if event["event"] != "start":
            raise ValueError(f"trial {event['trial']} has no start event before it")
        config = TrialConfig.model_validate(event["config"])
        kind = event.get("kind", "trial")
        parent = event.get("drawn", {}).get("parent")
        return Run(event["trial"], event["number"], config, event["time"], kind=kind, parent=parent)
    match event["event"]:
        case "start":  # resumed after a crash or a pause
            was_paused = run.status == "paused"
            return replace(
                run,
                config=TrialConfig.model_validate(event["config"]),  # a baseline is trained on
                status="running",
                reason="",
                ended=None,
                retries=run.retries + (not was_paused),
                pauses=run.pauses + was_paused,
                attempt_seen=0,
            )
        case "restarted_from_scratch":
            return replace(run, restarted_attempts=(*run.restarted_attempts, run.resumes))
        case "report":
            return _apply_report(run, event)
        case "trial_paused":
            return replace(run, status="paused")
        case "trial_finished":
            status, reason = event["status"], event.get("reason", "")
            if status not in get_args(RunStatus):
                raise ValueError(f"{status[:40]!r} is not a status of a trial")
            return replace(run, status=status, reason=reason, ended=event["time"])
    return run


def _apply_report(run: Run, event: Event) -> Run:
    """Apply a report; a trial that resumes from its checkpoint first repeats its last report."""
    seen, reports = event["seen"], run.reports
    _ = event["objective"], event["metrics"]
    is_resumed = run.resumes > 0 and run.attempt_seen == 0 and seen >= run.seen
    is_resumed = is_resumed and run.resumes not in run.restarted_attempts
    lost = 0 if is_resumed else max(0, min(seen, run.seen) - run.attempt_seen)
    if seen > run.seen:
        reports = (*reports, event)
    return replace(
        run,
        reports=reports,
        retrained_patches=run.retrained_patches + lost,
        attempt_seen=max(run.attempt_seen, seen),
    )


def group_by_config(runs: Iterable[Run]) -> list[list[Run]]:
    """Group runs by configuration without the training seed, in order of the first number.

    The mean of a group estimates its configuration; the best run of a group is biased upwards.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        same = run.config.model_copy(update={"seed": 0}).model_dump_json()
        groups.setdefault(same, []).append(run)
    return list(groups.values())


def mean_by_seed(values: Iterable[tuple[Run, float]]) -> list[float]:
    """Mean value of each training seed, since the same seed again is the same training.

    Args:
        values: runs of one configuration, each with its value.
    """
    seeds: dict[int, list[float]] = {}
    for run, value in values:
        seeds.setdefault(run.config.seed, []).append(value)
    return [fmean(same) for same in seeds.values()]
