"""A search that is interrupted or killed goes on and loses nothing."""

import os
import signal
import subprocess
import time
from pathlib import Path

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.search.journal import open_journal
from hpsearch.search.study import FILE
from hpsearch.tracking.names import default_uri

from .conftest import SPACE, Home

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def wait_for_reports(home: Home, name: str, count: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if sum(event["event"] == "report" for event in home.ledger(name).events()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {count} reports came; exit code {process.poll()}")


def assert_whole(home: Home, name: str) -> None:
    """Every trial ended once, in the ledger, the study and MLflow alike."""
    runs = [run for run in home.runs(name) if run.kind == "trial"]
    ended = [run for run in runs if run.status != "interrupted"]
    assert len(ended) == 6
    assert {run.status for run in ended} <= {"completed", "pruned", "collapsed", "diverged"}
    for run in runs:
        seen = [event["seen"] for event in run.reports]
        assert seen == sorted(set(seen))
    folder = home.path / "searches" / name
    study = optuna.load_study(study_name=name, storage=open_journal(folder / FILE))
    open_trials = [t for t in study.trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    assert not open_trials
    client = mlflow.MlflowClient(default_uri(home.path))
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    rule = f"tags.`hpsearch.search` = '{name}' and tags.`hpsearch.kind` = 'trial'"
    found = {
        r.data.tags["hpsearch.trial"]: r
        for r in client.search_runs([experiment.experiment_id], rule)
    }
    assert found.keys() == {run.id for run in runs}
    for run in runs:
        points = client.get_metric_history(found[run.id].info.run_id, "objective")
        assert [point.step for point in points] == [event["seen"] for event in run.reports]
        assert found[run.id].data.tags["status"] == run.status


def test_ctrl_c_keeps_everything_and_resume_goes_on(home: Home, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = home.begin(
        "search", SPACE, "--name", "stopped", "--data", home.store, "--cpus", 2, log=log
    )
    wait_for_reports(home, "stopped", 3, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130, log.read_text()
    assert "hpsearch resume stopped" in log.read_text()
    done = home.run("resume", "stopped")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Registered patch-descriptor version" in done.stdout
    assert_whole(home, "stopped")


def test_a_killed_driver_is_resumed(home: Home, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = home.begin(
        "search", SPACE, "--name", "killed", "--data", home.store, "--cpus", 2, log=log
    )
    wait_for_reports(home, "killed", 6, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    done = home.run("resume", "killed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_whole(home, "killed")
