"""The main job as a user does it: search, look, use the model; be interrupted, killed, resume.

One search here is never disturbed, and others are compared with it.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.data.patch_store import PatchStore
from hpsearch.evaluation import Scores
from hpsearch.reporting.leaderboard import leaderboard
from hpsearch.search.study import JOURNAL_FILE
from hpsearch.search.study_journal import open_journal
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.mlflow_tags import default_uri
from hpsearch.training.trial import build_trial

from .. import processes
from .conftest import SPACE, Home

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="session")
def printed(home: Home) -> str:
    """What the command prints into a file; it executes the user's space file once."""
    done = home.run("search", *named("main", home))
    assert done.returncode == 0, done.stdout + done.stderr
    assert home.executions() == 1, "in the driver, and by no worker"
    return done.stdout


def named(name: str, home: Home) -> tuple[object, ...]:
    """Arguments of a search whose study depends on nothing that happens at once."""
    return (
        SPACE, "--name", name, "--data", home.store, "--cpus", 1, "--max-concurrent-trials", 1,
    )  # fmt: skip


def client(home: Home) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(default_uri(home.path), default_uri(home.path))


def test_the_end_says_all_that_a_user_asks(printed: str) -> None:
    for words in (
        "Leaderboard of main",
        "6 trials:",
        "Pruning saved",
        "baseline triplet",
        "pixels 16×16",
        "RootSIFT",
        "Registered patch-descriptor version 1 ",
        "hpsearch ui",
        "hpsearch report main",
        "hpsearch promote main",
        "hpsearch describe models:/patch-descriptor",
    ):
        assert words in printed
    assert "\x1b" not in printed, "no colours in a file"


def test_every_trial_ended_and_the_collapsed_one_stands_last(home: Home, printed: str) -> None:
    runs = [run for run in home.runs("main") if run.kind == "trial"]
    assert len(runs) == 6
    assert {run.status for run in runs} <= {"completed", "pruned", "collapsed", "diverged"}
    assert runs[0].status in ("collapsed", "diverged"), runs[0]
    assert runs[0].reason
    last = leaderboard(home.runs("main"), direction="maximize")[-1]
    assert last.status in ("collapsed", "diverged")
    assert last.objective == 0.0


def test_the_study_tells_the_truth(home: Home, printed: str) -> None:
    states = {
        "completed": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "collapsed": TrialState.COMPLETE,
        "diverged": TrialState.COMPLETE,
    }
    tried = [
        t for t in study_of(home, "main").trials if t.state != TrialState.FAIL
    ]  # repeats are refused
    for run in home.runs("main"):
        if run.kind == "trial":
            trial = tried[run.number]
            assert trial.state == states[run.status]
            assert list(trial.intermediate_values) == [event["seen"] for event in run.reports]


def test_mlflow_has_a_parent_and_its_children_with_everything(home: Home, printed: str) -> None:
    found = client(home)
    experiment = found.get_experiment_by_name("hpsearch")
    assert experiment is not None
    runs = found.search_runs([experiment.experiment_id], "tags.`hpsearch.search` = 'main'")
    parents = [run for run in runs if run.data.tags["hpsearch.kind"] == "search"]
    assert len(parents) == 1
    parent = parents[0]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert len([run for run in children if run.data.tags["hpsearch.kind"] == "trial"]) == 6
    shown = {"collapsed": "FAILED", "completed": "FINISHED", "pruned": "FINISHED"}
    statuses = {(run.data.tags["status"], run.info.status) for run in children}
    assert statuses <= shown.items(), "no trial is marked with what it is not"
    assert parent.info.status == "FINISHED"
    files = {file.path for file in found.list_artifacts(parent.info.run_id)}
    assert {"report.html", "optuna.html", "figures"} <= files
    assert "Leaderboard" in printed
    assert "|" in parent.data.tags["mlflow.note.content"]
    ended = {"hpsearch.kind": "trial", "status": "completed"}
    done = next(run for run in children if ended.items() <= run.data.tags.items())
    pictures = {f.path for f in found.list_artifacts(done.info.run_id, "figures")}
    assert {f"figures/{n}.png" for n in ("learning_curves", "denoised", "embedding")} == pictures
    assert {
        "val/mAP",
        "val/matching/hard",
        "val_restoration/PSNR/tough",
        "train/loss",
        "system/cpu_utilization_percentage",
    } <= done.data.metrics.keys()


def test_a_denoiser_was_trained_once_for_all_trials(home: Home, printed: str) -> None:
    made = [path.name for path in (home.path / "artifacts").iterdir()]
    whole = [name for name in made if not name.endswith(".seconds")]
    assert len(whole) == 2, "weights, and the patches they denoised"
    assert {f"{name}.seconds" for name in whole} == {*made} - {*whole}, "and what each cost"


def test_report_writes_a_page_at_any_time(home: Home, printed: str, tmp_path: Path) -> None:
    home.executions()
    done = home.run_here("report", "main", "--output", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "Leaderboard of main" in done.stdout
    assert "<h1>main</h1>" in (tmp_path / "page.html").read_text()
    assert home.executions() == 1


def test_describe_writes_npy_and_official_csv(
    home: Home, printed: str, tiny: PatchStore, tmp_path: Path
) -> None:
    model, patches = "models:/patch-descriptor/1", tmp_path / "patches.npy"
    np.save(patches, np.array(tiny.noisy[:2, 0]))
    done = home.run_here("describe", model, patches, "--output", tmp_path / "found.npy")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npy")
    assert (found.shape, found.dtype) == ((2, 128), np.float32)
    done = home.run_here("describe", model, home.store, "--output", tmp_path / "csv")
    assert done.returncode == 0, done.stderr
    rows = np.loadtxt(tmp_path / "csv" / tiny.names[0] / "ref.csv", delimiter=",")
    np.testing.assert_allclose(rows[:2], found, atol=1e-5)


def test_evaluate_repeats_the_winners_test_scores(home: Home, printed: str, tmp_path: Path) -> None:
    to = tmp_path / "scores.json"
    model = "models:/patch-descriptor/1"
    done = home.run_here("evaluate", model, "--data", home.store, "--json", to)
    assert done.returncode == 0, done.stderr
    saved = json.loads((home.path / "searches" / "main" / "test_scores.json").read_text())
    del saved["schema_version"]
    winner = Scores.from_dict(next(iter(saved.values())))
    again = Scores.from_dict(json.loads(to.read_text()))
    assert again.mean == pytest.approx(winner.mean, abs=1e-6)


def test_a_trial_of_the_search_can_be_trained_again_without_ray(
    home: Home, printed: str, tmp_path: Path
) -> None:
    """On a machine whose OMP_NUM_THREADS is another than the worker's."""
    recorded = next(
        run for run in home.runs("main") if run.status == "completed" and run.kind == "trial"
    )
    name = f"main/{recorded.number}"
    done = processes.run(
        "train", name, "--output", tmp_path / "trained",
        HPSEARCH_HOME=str(home.path), OMP_NUM_THREADS="2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"again, to the last bit: val/mAP {recorded.metric('val/mAP'):.4f}" in done.stdout
    assert not done.stderr
    assert (tmp_path / "trained" / "pipeline.json").exists()


def wait_for_reports(home: Home, name: str, count: int, process: subprocess.Popen) -> None:
    until = time.monotonic() + 900
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


def test_a_killed_search_resumes_once_and_ends_in_the_study_of_one_that_was_not(
    home: Home, printed: str, tmp_path: Path
) -> None:
    """Its winner is compared with the champion; a second `resume` at the same time is refused."""
    log = tmp_path / "log"
    process = home.begin("search", *named("killed", home), log=log)
    wait_for_reports(home, "killed", 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    client(home).set_registered_model_alias("patch-descriptor", "champion", "1")
    home.executions()
    said, refused = home.twice("resume", "killed")
    assert "running in another process" in refused
    assert home.executions() in (1, 2), "once a command, if the refused one came so far"
    assert_whole(home, "killed")
    assert output(home, "killed") == output(home, "main")
    assert "Registered patch-descriptor version 2 " in said
    assert "against the champion" in said
    versions = client(home).search_model_versions("name = 'patch-descriptor'")
    assert sorted(version.tags["search"] for version in versions) == ["killed", "main"]
