"""A search that is interrupted or killed goes on and loses nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.search.study import JOURNAL_FILE
from hpsearch.search.study_journal import open_journal
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.mlflow_tags import default_uri
from hpsearch.training.trial import build_trial

from ..processes import environment
from .conftest import SPACE, Home

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def wait_for_reports(home: Home, name: str, count: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until and process.poll() is None:
        if sum(event["event"] == "report" for event in home.event_log(name).events()) >= count:
            return
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
    raise AssertionError(f"no {count} reports came; exit code {process.poll()}")


def study_of(home: Home, name: str) -> optuna.Study:
    storage = open_journal(home.path / "searches" / name / JOURNAL_FILE)
    return optuna.load_study(study_name=name, storage=storage)


def assert_whole(home: Home, name: str) -> None:
    """Every trial ended once, in the ledger, the study and MLflow alike."""
    runs = [run for run in home.runs(name) if run.kind == "trial"]
    ended = [run for run in runs if run.status != "interrupted"]
    assert len(ended) == 6
    assert {run.status for run in ended} <= {"completed", "pruned", "collapsed", "diverged"}
    for run in runs:
        seen = [event["seen"] for event in run.reports]
        assert seen == sorted(set(seen))
    trials = study_of(home, name).trials
    open_trials = [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
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


UNDISTURBED = """
import sys
from pathlib import Path
from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.ray_runtime import start_ray
from hpsearch.execution.tuner import run_session
from hpsearch.search.workspace import SearchRecord, Workspace

home, space, path = map(Path, sys.argv[1:])
store = PatchStore.open(path)
record = SearchRecord(space=str(space), store=str(path), fingerprint=store.fingerprint,
                      split="auto", tracking_uri="", trials=6, max_concurrent_trials=1)
start_ray(cpus=1)
assert run_session(Workspace(home).create("undisturbed", space, record)).exhausted
"""


def output(home: Home, name: str) -> list[tuple]:
    """All that a study knows of its trials, but when."""
    return [
        (t.number, t.state, t.params, t.values, t.intermediate_values, t.constraints, t.user_attrs)
        for t in study_of(home, name).trials
    ]


def assert_saved_between_reports(home: Home, name: str) -> None:
    """What was interrupted has saved further than its last report."""
    cut = [run for run in home.runs(name) if run.status == "interrupted"]
    context = Workspace(home.path).open(name)
    for run in cut:
        trial = build_trial(run.config, context.environment)
        trial.load(context.paths.trials_dir / run.id)
        assert trial.progress.seen > run.seen, run.id


@pytest.mark.timeout(1_800)
@pytest.mark.chaos  # two minutes; what it goes through is tested in parts in the plain suite
def test_ctrl_c_keeps_everything_and_resume_goes_on_and_extend_adds(
    home: Home, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = home.begin(
        "search", SPACE, "--name", "stopped", "--data", home.store, "--cpus", 2, "--trials", 5,
        log=log,
    )  # fmt: skip
    wait_for_reports(home, "stopped", 3, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=600) == 130, log.read_text()
    assert "hpsearch resume stopped" in log.read_text()
    assert_saved_between_reports(home, "stopped")
    done = home.run("resume", "stopped")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Registered patch-descriptor version" in done.stdout
    refused = home.run("resume", "stopped")
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert "has finished; add trials with `hpsearch extend stopped" in refused.stderr
    done = home.run("extend", "stopped", "--trials", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Registered patch-descriptor version" in done.stdout
    assert_whole(home, "stopped")


def test_a_killed_search_ends_in_the_study_of_one_that_was_not(home: Home, tmp_path: Path) -> None:
    log = tmp_path / "log"
    begin = (
        "search",
        SPACE,
        "--name",
        "killed",
        "--data",
        home.store,
        "--max-concurrent-trials",
        1,
    )
    process = home.begin(*begin, "--cpus", 1, log=log)
    wait_for_reports(home, "killed", 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    done = home.run("resume", "killed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_whole(home, "killed")
    script = [sys.executable, "-c", UNDISTURBED, home.path, SPACE, home.store]
    subprocess.run(script, env=environment(), check=True, timeout=240)
    assert output(home, "killed") == output(home, "undisturbed")
