"""The ledger and the runs put together from it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpsearch.config import TrialConfig
from hpsearch.schema import NewerSchema
from hpsearch.tracking.event_log import Event, EventLog
from hpsearch.tracking.run_state import runs_from

from ..fake_clock import make_clock

CONFIG = TrialConfig().model_dump(mode="json")


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "new" / "ledger.jsonl")


def report(seen: int, value: float) -> dict:
    return {"seen": seen, "objective": value, "metrics": {"val/mAP": value}}


def test_events_come_back_in_order_with_their_time(event_log: EventLog) -> None:
    event_log.append("start", trial="a", number=0, config=CONFIG)
    event_log.append("report", trial="a", **report(10, 0.5))
    events = event_log.events()
    assert [event["event"] for event in events] == ["start", "report"]
    assert events[0]["time"] <= events[1]["time"]


def test_a_reader_goes_on_where_it_stood(event_log: EventLog) -> None:
    event_log.append("report", trial="a", **report(1, 0.1))
    first, offset = event_log.read()
    event_log.append("report", trial="a", **report(2, 0.2))
    second, end = event_log.read(offset)
    assert [event["seen"] for event in first + second] == [1, 2]
    assert event_log.read(end) == ([], end)
    assert event_log.events_until(offset) == first


def test_a_half_written_line_is_neither_read_nor_in_the_way(event_log: EventLog) -> None:
    event_log.append("report", trial="a", **report(1, 0.1))
    with event_log.path.open("ab") as file:
        file.write(b'{"event": "rep')
    seen, offset = event_log.read()
    assert [event["seen"] for event in seen] == [1]
    event_log.append("report", trial="a", **report(2, 0.2))
    assert [event["seen"] for event in event_log.read(offset)[0]] == [2]


def test_a_clock_that_is_set_back_leaves_events_in_order(event_log: EventLog) -> None:
    event_log.path.parent.mkdir()
    ahead = time.time() + 3_600
    event_log.path.write_text(f'{{"event": "search", "time": {ahead}}}\n')  # an earlier session
    event_log.append("start", trial="a", number=0, config=CONFIG)
    event_log.append("report", trial="a", **report(10, 0.5))
    times = [event["time"] for event in event_log.events()]
    assert times == sorted(times)
    assert times[-1] - ahead < 60


def test_a_clock_that_is_set_while_a_search_runs_changes_nothing(
    event_log: EventLog, tmp_path: Path
) -> None:
    script = f"""
import os, time
from pathlib import Path
from hpsearch.tracking.event_log import EventLog
ledger, clock = EventLog(Path({str(event_log.path)!r})), Path(os.environ["HPSEARCH_TEST_CLOCK"])
for step in ("+0", "+3600", "-3600", "+0"):
    clock.write_text(step)
    ledger.append("report", clock=time.time())
"""
    variables = os.environ | make_clock(tmp_path).variables
    subprocess.run([sys.executable, "-c", script], env=variables, check=True, timeout=60)
    events = event_log.events()
    by_clock = [event["clock"] - events[0]["clock"] for event in events]
    assert by_clock == pytest.approx([0, 3_600, -3_600, 0], abs=60), "the clock was set"
    times = [event["time"] - events[0]["time"] for event in events]
    assert times == sorted(times)
    assert times[-1] < 60


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_the_end_of_a_trial_is_flushed_to_disk_with_all_before_it(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[bytes] = []
    monkeypatch.setattr(
        os, "fsync", lambda file: flushed.append(Path(f"/proc/self/fd/{file}").read_bytes())
    )
    event_log.append("report", trial="000", seen=1, metrics={})
    assert flushed == []
    event_log.append("trial_finished", trial="000", status="completed")
    assert [event["event"] for event in map(json.loads, flushed[0].splitlines())] == [
        "report", "trial_finished",
    ]  # fmt: skip


def test_a_full_disk_is_an_error_and_leaves_whole_events(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from hpsearch.tracking.event_log import EventLog
ledger = EventLog(Path({str(tmp_path)!r}) / "ledger.jsonl")
filler, sent = Path({str(tmp_path)!r}) / "filler", 0
filler.write_bytes(bytes(1 << 16))
try:
    while True:
        ledger.append("report", seen=sent + 1, words="a long event " * 100)
        sent += 1
except OSError as error:
    print(error.strerror)
filler.unlink()
ledger.append("report", seen=sent + 1)
print([event["seen"] for event in ledger.events()] == list(range(1, sent + 2)), sent > 10)
"""
    mount = f'mount -t tmpfs -o size=200k none {tmp_path} && exec "$0" -c "$1"'
    words = ["unshare", "--mount", "sh", "-c", mount, sys.executable, script]
    found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if "unshare" in found.stderr:
        pytest.skip(found.stderr)
    assert found.stdout == "No space left on device\nTrue True\n", found.stderr


def test_no_number_that_json_lacks_is_ever_written(event_log: EventLog) -> None:
    with pytest.raises(ValueError, match="JSON"):
        event_log.append("report", trial="a", **report(1, float("nan")))


def events(*steps: tuple[str, dict]) -> list[Event]:
    start = {"trial": "a", "number": 3, "config": CONFIG}
    named = [("start", start), *steps]
    return [{"event": n, "time": float(i), "trial": "a", **f} for i, (n, f) in enumerate(named)]


def test_a_run_is_what_its_events_say() -> None:
    (run,) = runs_from(
        events(
            ("report", report(10, 0.1)),
            ("report", report(20, 0.3)),
            ("trial_finished", {"status": "pruned", "reason": "low"}),
        )
    )
    assert (run.number, run.status, run.reason, run.seen) == (3, "pruned", "low", 20)
    assert run.curve("val/mAP") == ([10, 20], [0.1, 0.3])
    assert (run.started, run.ended) == (0.0, 3.0)


def test_reports_that_a_resumed_trial_repeats_count_once() -> None:
    again = {"trial": "a", "number": 3, "config": CONFIG}
    (run,) = runs_from(
        events(
            ("report", report(10, 0.1)),
            ("report", report(20, 0.2)),
            ("trial_finished", {"status": "interrupted"}),
            ("start", again),
            ("report", report(20, 0.2)),
            ("report", report(30, 0.3)),
        )
    )
    assert run.curve("val/mAP")[0] == [10, 20, 30]
    assert (run.status, run.retries, run.ended) == ("running", 1, None)


def test_runs_come_by_number_and_search_events_are_no_runs() -> None:
    lines: list[Event] = [{"event": "search", "time": 0.0}]
    for trial, number in (("b", 1), ("a", 0)):
        lines.append(
            {"event": "start", "time": 1.0, "trial": trial, "number": number, "config": CONFIG}
        )
    assert [run.id for run in runs_from(lines)] == ["a", "b"]


def test_names_of_0_1_0_are_read_as_the_present_ones(tmp_path: Path) -> None:
    old: list[Event] = [
        {
            "event": "search",
            "constants": {"optimiser": "sgd", "input.denoiser.optimiser.lr": 0.1, "patches": 9},
            "tags": {"hpsearch.beneath": "x", "git.commit": "y"},
        },
        {"event": "start", "trial": "0", "kind": "yardstick", "place": {"gpus": 1}},
        {"event": "crash", "trial": "0"},
        {"event": "anew", "trial": "0"},
        {"event": "end", "trial": "0"},
        {"event": "finish"},
    ]
    event_log = EventLog(tmp_path / "ledger.jsonl")
    event_log.path.write_text("".join(json.dumps({**e, "time": 1.0}) + "\n" for e in old))
    first, start, *rest = event_log.events()
    assert first["constants"] == {
        "optimizer": "sgd",
        "input.denoiser.optimizer.lr": 0.1,
        "patches": 9,
    }
    assert first["tags"] == {"hpsearch.parent_search": "x", "git.commit": "y"}
    assert (start["kind"], start["allocation"]) == ("baseline", {"gpus": 1})
    assert [event["event"] for event in rest] == [
        "worker_failed",
        "restarted_from_scratch",
        "trial_finished",
        "search_finished",
    ]


def test_events_of_one_kind_are_read_without_a_look_at_the_others(
    event_log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_log.append("search", params={})
    for number in range(50):
        event_log.append("report", trial="a", **report(number, 0.5))
        if number % 20 == 0:
            event_log.append("request", action="note", text=f"note {number}")
    event_log.append("search_finished", status="completed", reason='no "request" is left')
    expected = [event for event in event_log.events() if event["event"] == "request"]
    parsed, loads = list[str](), json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or loads(text))
    found, end = event_log.read(kind="request")
    assert found == expected
    assert len(expected) == 3
    assert end == event_log.path.stat().st_size
    assert len(parsed) <= 5, "the first line and those that may be of this kind"
    assert event_log.read(end, kind="request") == ([], end)


def test_a_newer_log_is_refused_also_if_one_kind_is_read(event_log: EventLog) -> None:
    event_log.append("search", params={}, schema_version=10**6)
    event_log.append("request", action="pause")
    with pytest.raises(NewerSchema):
        event_log.read(kind="request")
