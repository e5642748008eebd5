"""A state that grows with the event log is the state of the whole log, wherever a read falls."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.tracking.event_log import Event, EventLog
from hpsearch.tracking.run_state import UNFINISHED, SearchState, SearchStateReader, runs_from

CONFIG = TrialConfig().model_dump(mode="json")
TRIALS = ("000", "001", "baseline")
STATUSES = ("completed", "pruned", "failed", "interrupted")


def event_of(kind: str, trial: str, value: int) -> dict[str, Any]:
    """Event of a kind, with what it has to hold."""
    fields: dict[str, Any] = {
        "start": {
            "number": TRIALS.index(trial),
            "config": CONFIG,
            "kind": "baseline" if trial == "baseline" else "trial",
        },
        "report": {"seen": 10 * value, "objective": value / 7, "metrics": {"mAP": value / 7}},
        "restarted_from_scratch": {"reason": "damaged"},
        "crash": {"reason": "lost"},
        "trial_paused": {},
        "trial_finished": {"status": STATUSES[value % len(STATUSES)], "reason": "é" * value},
    }[kind]
    return {"event": kind, "time": float(value), "trial": trial, **fields}


@st.composite
def event_logs(draw: st.DrawFn) -> bytes:
    """Bytes of an event log whose writer died in the middle of some lines."""
    events = [{"event": "search", "time": 0.0, "direction": draw(st.sampled_from(
        ("maximize", "minimize")))}]  # fmt: skip
    started: set[str] = set()
    for _ in range(draw(st.integers(0, 25))):
        trial = draw(st.sampled_from(TRIALS))
        kinds = (
            ("start", "report", "restarted_from_scratch", "crash", "trial_paused", "trial_finished")
            if trial in started
            else ("start",)
        )
        kind = draw(st.sampled_from((*kinds, "search_finished")))
        value = draw(st.integers(0, 9))
        if kind == "search_finished":
            events.append({"event": kind, "time": float(value), "status": "completed"})
            continue
        started.add(trial)
        events.append(event_of(kind, trial, value))
    data = b""
    for event in events:
        line = json.dumps(event, ensure_ascii=False).encode()
        if draw(st.integers(0, 5)) == 0:
            data += line[: draw(st.integers(0, len(line) - 1))] + b"\n"
        data += line + b"\n"
    return data


def best_so_far(events: list[Event]) -> list[tuple[float, int, float]]:
    """Best value, trials that have ended, and time, from all runs at each end of a trial."""
    found: list[tuple[float, int, float]] = []
    for number, event in enumerate(events):
        state = state_of(events[: number + 1])
        run = state.runs.get(event.get("trial", ""))
        if run is None or run.kind != "trial" or event["event"] != "trial_finished":
            continue
        trials = [run for run in state.runs.values() if run.kind == "trial"]
        ended = [run for run in trials if run.status not in UNFINISHED]
        values = [
            r.reports[-1]["objective"] for r in ended if r.status == "completed" and r.reports
        ]
        if run.status == "interrupted" or not values:
            continue
        assert state.search_event is not None
        choose = min if state.search_event["direction"] == "minimize" else max
        if len(ended) > (found[-1][1] if found else 0):
            found.append((choose(values), len(ended), event["time"]))
    return found


def state_of(events: list[Event]) -> SearchState:
    """State by applying every event to a new one."""
    state = SearchState()
    for event in events:
        state.apply(event)
    return state


@settings(max_examples=60, deadline=None)
@given(event_logs(), st.data())
def test_the_state_is_that_of_the_whole_log_at_every_cut(data: bytes, more: st.DataObject) -> None:
    cuts = more.draw(st.lists(st.integers(0, len(data)), max_size=12))
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "ledger.jsonl")
        reader, written = SearchStateReader(log), 0
        for cut in (*sorted(cuts), len(data)):
            with log.path.open("ab") as file:
                file.write(data[written:cut])
            written = cut
            assert reader.read() == state_of(log.events())
            assert reader.read().ordered_runs == runs_from(log.events())


def test_a_read_begins_where_the_last_one_ended(tmp_path: Path) -> None:
    offsets = []

    class Watched(EventLog):
        def read(self, offset: int = 0) -> tuple[list[Event], int]:
            offsets.append(offset)
            return super().read(offset)

    log = Watched(tmp_path / "ledger.jsonl")
    reader, sizes = SearchStateReader(log), [0]
    assert reader.read() == SearchState()
    for number in range(3):
        log.append("start", trial=f"{number:03d}", number=number, config=CONFIG)
        assert len(reader.read().runs) == number + 1
        sizes.append(log.path.stat().st_size)
    assert offsets == [0, *sizes[:3]]


def test_a_damaged_log_is_refused_each_time_until_it_is_restored(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "ledger.jsonl")
    log.append("start", trial="000", number=0, config=CONFIG)
    whole = log.path.read_bytes()
    log.append("report", trial="007", seen=1, objective=0.5, metrics={})
    reader = SearchStateReader(log)
    for _ in range(2):
        with pytest.raises(UserError, match="event 'report' in ledger"):
            reader.read()
    log.path.write_bytes(whole)
    assert [run.retries for run in reader.read().ordered_runs] == [0], "nothing counts twice"


@given(event_logs())
@settings(max_examples=50, deadline=None)
def test_the_best_so_far_is_that_of_all_runs(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "ledger.jsonl")
        log.path.write_bytes(data)
        events = log.events()
    assert [tuple(best) for best in state_of(events).best] == best_so_far(events)
