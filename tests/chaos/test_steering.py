"""A real search is steered while it runs: a point, a stop, a pause, concurrency, and its end."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.run_state import Run, runs_from

from ..processes import begin, run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.pruners import NoPruner
from hpsearch.search.search import Search

CONFIG = dict(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=900_000)

def suggest(trial):
    return TrialConfig(optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), **CONFIG)

SEARCH = Search(suggest=suggest, budget=900_000, report_every=1_000, trials=4, validation_points=8,
                pruner=NoPruner(), baseline=TrialConfig(**CONFIG))
"""
PATIENCE_S = 240.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def test_a_running_search_follows_its_user(tmp_path: Path, tiny: PatchStore) -> None:
    space, home = tmp_path / "far.py", tmp_path / "home"
    space.write_text(SPACE)
    log = EventLog(home / "searches" / "far" / "ledger.jsonl")
    sent = tmp_path / "sent.jsonl"
    program = tmp_path / "notify.py"
    program.write_text(f"import sys; open({str(sent)!r}, 'a').write(sys.stdin.read() + '\\n')")

    def runs() -> dict[str, Run]:
        return {found.id: found for found in runs_from(log.events()) if found.kind == "trial"}

    def steer(*words: object) -> str:
        done = run(*words, "--home", home)
        assert done.returncode == 0, done.stderr
        return done.stdout

    words = ("--data", tiny.path, "--cpus", 2, "--max-concurrent-trials", 1, "--home", home)
    process = begin("search", space, *words, "--notify", f"python {program}", log=tmp_path / "out")
    try:
        wait_for(lambda: "000" in runs() and runs()["000"].seen, "the first trial reports")
        assert steer("status", "far").startswith("far: running")
        steer("try", "far", '{"lr": 0.005}')
        steer("pause", "far")
        assert "paused" in steer("list")
        steer("stop", "far", "--trial", "000")
        wait_for(lambda: runs()["000"].status != "running", "the trial stops")
        assert (runs()["000"].status, runs()["000"].reason) == ("pruned", "stopped on request")
        time.sleep(5)  # in which an unpaused search would start the next trial
        assert set(runs()) == {"000"}
        steer("resume", "far")
        wait_for(lambda: "001" in runs() and runs()["001"].seen, "the next trial reports")
        assert runs()["001"].config.optimizer.lr == 0.005
        steer("concurrency", "far", 2)
        wait_for(lambda: "002" in runs(), "a second trial runs too")
        assert runs()["001"].status == "running"
        steer("note", "far", "as expected", "--trial", "001")
        assert "stopped" in steer("stop", "far")
        assert process.wait(PATIENCE_S) == 130
    finally:
        process.kill()
        process.wait()
    assert {found.status for found in runs().values()} == {"pruned", "interrupted"}
    assert "note 001: as expected" in steer("show", "far")
    events = [json.loads(line)["event"] for line in sent.read_text().splitlines()]
    assert events == ["search-ended"]
    assert "Interrupted; nothing is lost" in (home / "searches" / "far" / "search.log").read_text()
