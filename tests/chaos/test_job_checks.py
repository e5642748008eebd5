"""What a cluster has not got: told before a job is queued, or soon after; or waited for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from hpsearch.data.patch_store import PatchStore

from .commands import Jobs
from .faults import Hold
from .searches import MARKS, space_of, wait_for

pytestmark = MARKS

SOON = 300
"""Seconds until `status` says at the latest why a job failed."""
JOBS = Jobs("http://127.0.0.1:8371")


@pytest.fixture
def space(tmp_path: Path) -> Callable[[str], Path]:
    text = space_of(patches=48_000, trials=1, reports=40)

    def write(name: str, first: str = "") -> Path:
        (tmp_path / f"{name}.py").write_text(f"{first}\n{text}")
        return tmp_path / f"{name}.py"

    return write


def test_what_the_cluster_lacks_is_reported_and_a_search_may_wait_for_nodes(
    hold: Hold, fleet, tiny: PatchStore, tmp_path: Path, space: Callable[..., Path]
) -> None:
    hold.at(0)
    fleet.start_head(cpus=1, dashboard=8371)
    home, data = str(tmp_path / "home"), ["--data", str(tiny.path)]
    mine = str(space("mine"))
    wait_for(lambda: "there are 1 CPU" in JOBS.run("submit", mine, "--device", "xla").stderr)
    for words, output in (
        (["--gpus-per-trial", "1"], "no node of the cluster has that much; there are 1 CPU"),
        (["--device", "xla"], "requests 1 CPU and 1 TPU"),
        (["--max-concurrent-trials", "2"], "2 trials at once do not fit"),
        (["--data", "mine.arrow"], "relative to this folder"),
        (["--trails", "2"], "No such option"),
        (["--study", "postgresql://me:secret@host/db"], "holds a password"),
    ):
        refused = JOBS.run("submit", mine, *words)
        assert refused.returncode == 2, refused.stdout + refused.stderr
        assert output in refused.stderr
    assert "no search was submitted" in JOBS.run("list").stdout

    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "only_here.py").touch()
    lacking = str(space("lacking", "import only_here"))
    sent = JOBS.run("submit", lacking, "--home", home, *data, PYTHONPATH=str(tmp_path / "here"))
    assert sent.returncode == 0, sent.stderr
    JOBS.wait_for("lacking", "lacks the Python module 'only_here'", SOON)
    nowhere = ["--data", "/nowhere/patches.arrow"]
    assert JOBS.run("submit", space("blind"), "--home", home, *nowhere).returncode == 0
    JOBS.wait_for("blind", "the head sees no patch store at /nowhere/patches.arrow", SOON)

    waiting = ["--home", home, "--cpus-per-trial", "2", "--wait-for-nodes", *data]
    assert JOBS.run("submit", mine, *waiting).returncode == 0
    JOBS.wait_for("mine", "waiting for nodes: a trial requests 2 CPUs", 300)
    fleet.start_worker("late", cpus=2)
    JOBS.wait_for("mine", "0 of 1 trials", 300)
    stopped = JOBS.run("stop", "mine")
    assert "mine: stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    assert "hpsearch resume mine" in stopped.stdout
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [run.info.status for run in found] == ["KILLED"] * 2
    assert {run.data.tags["status"] for run in found} == {"interrupted"}
