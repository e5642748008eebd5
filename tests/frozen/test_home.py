"""A home of 0.1.0 that was moved opens, reports, resumes, promotes and gives its models."""

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import pytest
import torch
from typer.testing import CliRunner

from hpsearch.cli import app
from hpsearch.config import TrialConfig
from hpsearch.config.base import dump_former_names
from hpsearch.data.patch_store import PatchStore
from hpsearch.search.search_context import SearchContext
from hpsearch.search.study_journal import open_journal
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.model_artifact import load_descriptor

from ..processes import run
from .conftest import artifact_places, made_at, unpack
from .machine import machine_digest, weights_digest

MODEL = "patch-descriptor"
SEARCHES = {"finished", "finished-promotion", "stopped"}
RESUMED = 9
"""The trial in which ``stopped`` was stopped; those after it had not begun."""

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::hpsearch.errors.OldSpellingWarning",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("moved"))


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A moved home in which the search that was stopped has been resumed to its end."""
    home = unpack(tmp_path_factory.mktemp("resumed"))
    done = run("resume", "stopped", HPSEARCH_HOME=str(home))
    assert done.returncode == 0, done.stdout + done.stderr
    return home


def command(home: Path, *words: object) -> str:
    """What a command prints, in this process."""
    done = CliRunner(env={"COLUMNS": "120"}).invoke(
        app, [*map(str, words), "--home", str(home)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def uri(home: Path) -> str:
    return Workspace(home).tracking().uri


def load_champion(home: Path) -> None:
    """Load it, and leave nothing in the environment that the next command would go by."""
    load_descriptor(f"models:/{MODEL}@champion", uri(home))
    os.environ.pop("MLFLOW_TRACKING_URI", None)


def trials(context: SearchContext) -> list[dict[str, Any]]:
    """As ``make_home.py`` wrote down what 0.1.0 had, but the weights."""
    storage = open_journal(context.paths.folder / "study.journal")
    return [
        {
            "state": trial.state.name,
            "params": trial.params,
            "value": trial.value,
            "reports": {str(step): value for step, value in trial.intermediate_values.items()},
            "outcome": trial.user_attrs.get("outcome"),
        }
        for trial in optuna.load_study(study_name=context.name, storage=storage).trials
    ]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_its_searches_are_found_with_their_runs(home: Path, expected: dict[str, Any]) -> None:
    workspace = Workspace(home)
    assert set(workspace.searches()) == SEARCHES
    for name in ("finished", "stopped"):
        ended = [run.status for run in workspace.open(name).runs if run.kind == "trial"]
        outcomes = [trial["outcome"] or "interrupted" for trial in expected["studies"][name]]
        assert ended == outcomes
    assert {"completed", "pruned", "collapsed", "failed", "interrupted"} == {
        run.status for name in SEARCHES for run in workspace.open(name).runs
    }


@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_what_lies_inside_it_is_found_there(home: Path, name: str) -> None:
    context = Workspace(home).open(name)
    assert context.store.path == home / "data" / "points.arrow"
    assert context.tracking().uri == f"sqlite:///{home}/mlflow.db"
    places = artifact_places(home)
    assert places
    assert all(place.startswith((home / "mlartifacts").as_uri()) for place in places)


def test_it_reports(home: Path, tmp_path: Path, expected: dict[str, Any]) -> None:
    page = tmp_path / "report.html"
    said = command(home, "report", "finished", "--output", page)
    values = [trial["value"] for trial in expected["studies"]["finished"] if trial["value"]]
    assert f"{max(values):.4f}" in said
    assert "pixels 16×16" in said
    assert f"{max(values):.4f}" in page.read_text()


def test_an_archive_is_reported_in_a_home_without_its_patches(home: Path, tmp_path: Path) -> None:
    archive, page = tmp_path / "finished.tar.gz", tmp_path / "report.html"
    command(home, "archive", "finished", "--output", archive)
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "other" / "searches", filter="data")
    assert "12 trials" in command(tmp_path / "other", "report", "finished", "--output", page)
    assert "What the model does: no patch store at" in page.read_text()


def test_a_promotion_that_ended_and_one_that_has_not_begun_are_planned(home: Path) -> None:
    assert "finished-promotion" in command(home, "promote", "finished", "--dry-run")
    said = command(home, "promote", "stopped", "--dry-run", "--top", 2, "--seeds", 2)
    assert "2 × 2 seeds = 4 trainings" in said
    assert set(Workspace(home).searches()) == SEARCHES


@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
def test_every_model_describes_as_it_did(home: Path, expected: dict[str, Any]) -> None:
    patches = np.array(PatchStore.open(home / "data" / "points.arrow").noisy[:2, 0])
    address = uri(home)
    mlflow.set_tracking_uri(address)
    mlflow.set_registry_uri(address)
    assert len(expected["models"]) == 2
    for version, facts in expected["models"].items():
        name = f"models:/{MODEL}/{version}"
        known = np.array(facts["descriptors"])
        np.testing.assert_allclose(
            mlflow.pyfunc.load_model(name).predict(patches), known, 1e-4, 1e-4
        )
        np.testing.assert_allclose(
            load_descriptor(name, address).predict(patches), known, 1e-4, 1e-4
        )


def test_the_champion_is_who_it_was_and_describes_a_store(
    home: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    to = tmp_path / "descriptors.npy"
    store = home / "data" / "points.arrow"
    command(home, "describe", f"models:/{MODEL}@champion", store, "--output", to)
    known = expected["models"][str(expected["champion"])]["descriptors"]
    np.testing.assert_allclose(np.load(to)[[0, 16]], known, 1e-4, 1e-4)


@pytest.mark.slow
def test_resumed_it_ends_as_the_search_that_was_never_stopped(
    resumed: Path, expected: dict[str, Any]
) -> None:
    workspace = Workspace(resumed)
    found, known = trials(workspace.open("stopped")), expected["studies"]["finished"]
    same_machine = machine_digest() == expected["machine"]
    for number, (trial, before) in enumerate(zip(found, known, strict=True)):
        assert (trial["state"], trial["outcome"]) == (before["state"], before["outcome"]), number
        assert trial["params"].keys() == before["params"].keys(), number
        for key, value in before["params"].items():
            near = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            assert trial["params"][key] == near, (number, key)
        assert trial["reports"].keys() == before["reports"].keys(), number
        tolerance = 0 if same_machine else 0.1  # ranks of a few patches: a tie is a large step
        assert trial["reports"] == pytest.approx(before["reports"], abs=tolerance, rel=0), number
    if same_machine:
        for number in range(RESUMED, len(known)):
            checkpoint = workspace.open("stopped").paths.trials_dir / f"{number:03d}" / "trial.pt"
            state = torch.load(checkpoint, weights_only=True)
            assert weights_digest(state["task"]["network"]) == known[number]["weights"], number


@pytest.mark.slow
def test_resumed_it_is_whole_in_mlflow_and_in_its_files(resumed: Path) -> None:
    context = Workspace(resumed).open("stopped")
    client = context.tracking().client()
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    rule = "tags.`hpsearch.search` = 'stopped' and tags.`hpsearch.kind` = 'trial'"
    runs = client.search_runs([experiment.experiment_id], rule)
    assert sorted(run.data.tags["hpsearch.trial"] for run in runs) == [
        run.id for run in context.runs if run.kind == "trial"
    ]
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 3
    record = json.loads((context.paths.folder / "search.json").read_text())
    inside = {
        "schema_version": 2,
        "store": "data/points.arrow",
        "tracking_uri": "sqlite:///mlflow.db",
    }
    assert inside.items() <= record.items()
    for name in ("published.json", "test_scores.json"):
        assert json.loads((context.paths.folder / name).read_text())["schema_version"] == 2
    published = json.loads((context.paths.folder / "published.json").read_text())
    assert published.keys() == {"schema_version", "sqlite:///mlflow.db"}


@pytest.mark.parametrize("opened", [False, True], ids=["never opened", "opened before"])
def test_a_copy_leaves_the_original_alone(tmp_path: Path, opened: bool) -> None:
    original = (unpack if opened else made_at)(tmp_path)
    if opened:
        Workspace(original).open("finished").with_record()  # its record is now of this version
        uri(original)
    before = digests(original)
    copy = tmp_path / "copy"
    shutil.copytree(original, copy)
    command(copy, "sync", "finished", "--no-pictures")
    assert digests(original) == before
    context = Workspace(copy).open("finished")
    assert context.store.path == copy / "data" / "points.arrow"
    assert all(place.startswith((copy / "mlartifacts").as_uri()) for place in artifact_places(copy))
    shutil.rmtree(original)
    load_champion(copy)


def test_a_home_of_this_version_is_renamed_and_moved_back(tmp_path: Path) -> None:
    first, second = unpack(tmp_path), tmp_path / "renamed, 100% mine"
    Workspace(first).open("finished").with_record()
    for old, new in ((first, second), (second, first), (first, second)):
        uri(old)
        old.rename(new)
        load_champion(new)
        assert Workspace(new).open("finished").store.path == new / "data" / "points.arrow"
        assert "stopped" in command(new, "report", "stopped", "--output", tmp_path / "page.html")
        assert not old.exists()


def test_it_may_be_named_by_a_relative_path_or_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = unpack(tmp_path)
    uri(home)
    before = (home / "mlflow.db").read_bytes()
    (tmp_path / "link").symlink_to(home)
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "link", os.path.join(".", "runs")):  # noqa: PTH118
        context = Workspace(Path(name)).open("finished")
        context.with_record()
        context.tracking()
        record = json.loads((home / "searches" / "finished" / "search.json").read_text())
        assert (record["store"], record["tracking_uri"]) == (
            "data/points.arrow",
            "sqlite:///mlflow.db",
        )
    assert (home / "mlflow.db").read_bytes() == before


def test_its_configurations_are_what_they_were(home: Path) -> None:
    """Digests of them name shared denoisers, so every name and value is as 0.1.0 wrote it."""
    found = 0
    for name in SEARCHES:
        text = (home / "searches" / name / "ledger.jsonl").read_text()
        for event in map(json.loads, text.splitlines()):
            if "config" in event:
                config = TrialConfig.model_validate(event["config"])
                assert json.dumps(dump_former_names(config)) == json.dumps(event["config"])
                found += 1
    assert found > 20
