"""What a cluster has not got: told before a job is queued, or soon after; or waited for."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from hpsearch.data.store import PatchStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

SPACE = """{first}
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.search import Search

PATCHES = 48_000

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimiser=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=PATCHES)

SEARCH = Search(suggest=suggest, budget=PATCHES, report_every=PATCHES // 40, validation_points=8,
                trials=1, baseline=TrialConfig(patches=1_200), scheduler="none")
"""
SOON = 30
"""Seconds until `status` says why a job failed."""
ADDRESS = "http://127.0.0.1:8371"


def command(*words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "HPSEARCH_ADDRESS": ADDRESS, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-m", "hpsearch", *words], capture_output=True, text=True, check=False,
        env=environment, timeout=200,
    )  # fmt: skip


def wait_for(words: str, name: str, seconds: float) -> float:
    """Seconds until `hpsearch status` says so."""
    began = time.monotonic()
    while words not in (said := command("status", name).stdout):
        assert time.monotonic() - began < seconds, said
        time.sleep(0.5)
    return time.monotonic() - began


@pytest.fixture
def space(tmp_path: Path) -> Callable[[str], Path]:
    def write(name: str, first: str = "") -> Path:
        (tmp_path / f"{name}.py").write_text(SPACE.format(first=first))
        return tmp_path / f"{name}.py"

    return write


def test_what_the_cluster_lacks_is_said_and_a_search_may_wait_for_nodes(
    fleet, tiny: PatchStore, tmp_path: Path, space: Callable[..., Path]
) -> None:
    fleet.start_head(cpus=1, dashboard=8371)
    deadline = time.monotonic() + 90
    while (listed := command("list")).returncode:
        assert time.monotonic() < deadline, listed.stderr
    home, data = str(tmp_path / "home"), ["--data", str(tiny.path)]
    mine = str(space("mine"))
    for words, said in (
        (["--gpus-per-trial", "1"], "no node of the cluster has that much; there are 1 CPU"),
        (["--device", "xla"], "asks for 1 CPU and 1 TPU"),
        (["--concurrent", "2"], "2 trials at once do not fit"),
        (["--data", "mine.arrow"], "relative to this folder"),
        (["--trails", "2"], "No such option"),
        (["--study", "postgresql://me:secret@host/db"], "holds a password"),
    ):
        refused = command("submit", mine, *words)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert said in refused.stderr
    assert "no search has been submitted" in command("list").stdout

    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "only_here.py").touch()
    lacking = str(space("lacking", "import only_here"))
    sent = command("submit", lacking, "--home", home, *data, path=str(tmp_path / "here"))
    assert sent.returncode == 0, sent.stderr
    wait_for("lacks the Python module 'only_here'", "lacking", SOON)
    nowhere = ["--data", "/nowhere/patches.arrow"]
    assert command("submit", str(space("blind")), "--home", home, *nowhere).returncode == 0
    wait_for("the head sees no patch store at /nowhere/patches.arrow", "blind", SOON)

    waiting = ["--home", home, "--cpus-per-trial", "2", "--wait", *data]
    assert command("submit", mine, *waiting).returncode == 0
    wait_for("waiting for nodes: a trial asks for 2 CPUs", "mine", 120)
    fleet.start_worker("late", cpus=2)
    wait_for("0 of 1 trials", "mine", 120)
    stopped = command("stop", "mine")
    assert "mine: stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    assert "hpsearch resume mine" in stopped.stdout
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [run.info.status for run in found] == ["KILLED"] * 2
    assert {run.data.tags["status"] for run in found} == {"interrupted"}
