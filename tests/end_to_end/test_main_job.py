"""The main job as a user does it: search, look, use the model, promote."""

import json
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
from hpsearch.tracking.mlflow_tags import default_uri

from .. import processes
from .conftest import SPACE, Home

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="session")
def printed(home: Home) -> str:
    """What the command prints into a file."""
    done = home.run("search", SPACE, "--name", "main", "--data", home.store, "--cpus", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


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
    folder = home.path / "searches" / "main"
    study = optuna.load_study(study_name="main", storage=open_journal(folder / JOURNAL_FILE))
    states = {
        "completed": TrialState.COMPLETE,
        "pruned": TrialState.PRUNED,
        "collapsed": TrialState.COMPLETE,
        "diverged": TrialState.COMPLETE,
    }
    tried = [t for t in study.trials if t.state != TrialState.FAIL]  # repeats are refused
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
    done = next(run for run in children if run.data.tags["status"] == "completed")
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


def test_a_second_search_is_compared_with_the_champion(home: Home, printed: str) -> None:
    client(home).set_registered_model_alias("patch-descriptor", "champion", "1")
    done = home.run(
        "search", SPACE, "--name", "second", "--data", home.store, "--trials", 3, "--cpus", 2
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Registered patch-descriptor version 2 " in done.stdout
    assert "against the champion" in done.stdout
    versions = client(home).search_model_versions("name = 'patch-descriptor'")
    assert {version.tags["search"] for version in versions} == {"main", "second"}


def test_report_writes_a_page_at_any_time(home: Home, printed: str, tmp_path: Path) -> None:
    done = home.run("report", "main", "--output", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "Leaderboard of main" in done.stdout
    assert "<h1>main</h1>" in (tmp_path / "page.html").read_text()


def test_describe_writes_npy_and_official_csv(
    home: Home, printed: str, tiny: PatchStore, tmp_path: Path
) -> None:
    model, patches = "models:/patch-descriptor/1", tmp_path / "patches.npy"
    np.save(patches, np.array(tiny.noisy[:2, 0]))
    done = home.run("describe", model, patches, "--output", tmp_path / "found.npy")
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npy")
    assert (found.shape, found.dtype) == ((2, 128), np.float32)
    done = home.run("describe", model, home.store, "--output", tmp_path / "csv")
    assert done.returncode == 0, done.stderr
    rows = np.loadtxt(tmp_path / "csv" / tiny.names[0] / "ref.csv", delimiter=",")
    np.testing.assert_allclose(rows[:2], found, atol=1e-5)


def test_evaluate_repeats_the_winners_test_scores(home: Home, printed: str, tmp_path: Path) -> None:
    to = tmp_path / "scores.json"
    model = "models:/patch-descriptor/1"
    done = home.run("evaluate", model, "--data", home.store, "--json", to)
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
