"""A search as a job of a cluster: submitted, stopped, resumed, by the real command."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpsearch.data.store import PatchStore
from hpsearch.tracking.ledger import Ledger
from hpsearch.tracking.runs import runs_from

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(600)]

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.search import Search

PATCHES = 38_400

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimiser=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=PATCHES)

SEARCH = Search(suggest=suggest, budget=PATCHES, report_every=PATCHES // 16, validation_points=8,
                trials=2, baseline=TrialConfig(descriptor=L2Net(width=0.125), patches=1_200),
                scheduler="none")
"""


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpsearch", *words], capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "200"}, timeout=200,
    )  # fmt: skip


def test_a_search_is_submitted_stopped_resumed_and_ends(
    fleet, tiny: PatchStore, tmp_path: Path
) -> None:
    fleet.start_head(cpus=2, dashboard=8361)
    address = ["--address", "http://127.0.0.1:8361"]
    space, home = tmp_path / "elsewhere" / "mine.py", tmp_path / "home"
    space.parent.mkdir()
    space.write_text(SPACE)

    def status() -> str:
        found = command("status", "mine", *address)
        assert found.returncode == 0, found.stderr
        return found.stdout

    def wait_for(words: str, seconds: float = 150) -> str:
        deadline = time.monotonic() + seconds
        while words not in (said := status()):
            assert time.monotonic() < deadline, said
            time.sleep(1)
        return said

    options = ["--home", str(home), "--data", str(tiny.path)]
    deadline = time.monotonic() + 90
    while (sent := command("submit", str(space), *address, *options)).returncode:
        starting = ("no Ray head answers", "there are 0 CPUs")  # the latter: without a node yet
        assert any(words in sent.stderr for words in starting), sent.stderr
        assert time.monotonic() < deadline, "no head"
    assert "hpsearch status mine" in sent.stdout
    wait_for("0 of 2 trials")
    assert "is running on http" in command("submit", str(space), *address).stderr
    stopped = command("stop", "mine", *address)
    assert "mine: stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    ledger = Ledger(home / "searches" / "mine" / "ledger.jsonl")
    before = sum(len(run.reports) for run in runs_from(ledger.events()))
    assert 1 <= before < 32
    assert "has stopped on" in command("submit", str(space), *address).stderr
    assert command("resume", "mine", *address).returncode == 0
    wait_for("mine: completed")
    assert "Registered patch-descriptor version 1" in command("logs", "mine", *address).stdout
    assert "completed" in command("list", *address).stdout
    trials = [run for run in runs_from(ledger.events()) if run.kind == "trial"]
    assert [[report["seen"] for report in run.reports] for run in trials] == [
        [2_400 * i for i in range(1, 17)]
    ] * 2


def test_an_address_that_is_no_head_is_one_sentence() -> None:
    for address, words in (
        ("127.0.0.1:8265", "is not the address of a job server"),
        ("http://127.0.0.1:9", "no Ray head answers"),
    ):
        refused = command("list", "--address", address)
        assert refused.returncode == 2
        assert words in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
