"""Homes that may only be read, and moved ones: every reading command works, and writes nothing."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.cli import app
from hpsearch.cli.results import _ui_server
from hpsearch.errors import UserError
from hpsearch.search.workspace import Workspace

from ..mounts import read_only
from ..processes import environment
from .conftest import SLOW_WITH_MLFLOW

pytestmark = SLOW_WITH_MLFLOW
READING = (
    ("data", "info", "STORE"),
    ("data", "preview", "STORE"),
    ("report",),
    ("promote", "one", "--dry-run"),
    ("describe", "models:/patches@champion", "STORE", "--output", "x.npy"),
    ("evaluate", "models:/patches@champion", "--data", "STORE"),
    ("export", "models:/patches@champion", "--onnx", "x.onnx"),
)
OTHER_USER = ("--bounding-set=-dac_override,-dac_read_search,-fowner", "--")
"""Options of ``setpriv`` with which root has the permissions of any user."""
NOBODY = 65534


def state(folder: Path) -> dict[str, str]:
    """Digest of every file, and the folders."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in folder.rglob("*")
    }


@pytest.fixture(autouse=True)
def forget_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow keeps the server of an earlier test in the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def read_all(
    material: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], None]:
    """Run every reading command on a home, in another folder."""

    def run(home: Path) -> None:
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        for words in READING:
            monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
            given = [str(material.get(word, word)) for word in words]
            app([*given, "--home", str(home)], standalone_mode=False)

    return run


@pytest.fixture
def moved(material: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the home; the home that its database names is not its own."""
    return Path(shutil.copytree(material["HOME"], tmp_path / "a copy #1"))


def test_reading_commands_write_nothing_into_a_moved_home(
    read_all: Callable[[Path], None], moved: Path, material: dict[str, Path]
) -> None:
    before, original = state(moved), state(material["HOME"])
    read_all(moved)
    assert state(moved).keys() - before.keys() == {"searches/one/report.html"}
    (moved / "searches" / "one" / "report.html").unlink()
    assert state(moved) == before
    assert state(material["HOME"]) == original
    assert sorted(path.name for path in Path().iterdir()) == ["preview.png", "x.npy", "x.onnx"]


def test_a_home_on_a_read_only_disk_is_read_and_its_page_lies_here(
    read_all: Callable[[Path], None],
    moved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with read_only(moved, tmp_path / "archive") as home:
        read_all(home)
        assert "<title>" in Path("one-report.html").read_text()
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        shown, notes = _ui_server(Workspace(home).open("one").tracking)
        assert shown.is_copy
        assert notes
        champion = shown.client().get_model_version_by_alias("patches", "champion")
        assert str(champion.version) == "1"
        version = shown.client().get_model_version("patches", "2")
        run = shown.client().get_run(version.run_id or "")
        assert str(run.info.artifact_uri).startswith((home / "mlartifacts").absolute().as_uri())


def test_a_database_that_cannot_be_written_is_named_before_work(
    moved: Path, tmp_path: Path
) -> None:
    with read_only(moved, tmp_path / "archive") as home:
        with pytest.raises(UserError, match=r"archive/mlflow\.db cannot be written"):
            Workspace(home).tracking()
        assert Workspace(home).tracking(read_only=True).is_copy


def test_a_reading_command_makes_no_home(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no MLflow database"):
        Workspace(tmp_path / "none").tracking(read_only=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as another user")
def test_another_user_s_home_is_read(moved: Path, tmp_path: Path) -> None:
    for path in (moved, *moved.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o755 if path.is_dir() else 0o644)
    before, here = state(moved), tmp_path / "here"
    here.mkdir()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["setpriv", *OTHER_USER, sys.executable, "-m", "hpsearch", *words, "--home", moved],
            env=environment(), cwd=here, capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = run("report", "one")
    assert done.returncode == 0, done.stderr
    assert (here / "one-report.html").is_file()
    refused = run("resume", "one")
    assert refused.returncode == 2
    assert re.search(
        rf"{re.escape(str(moved))}/\S+ cannot be written \(permission denied\)", refused.stderr
    )
    assert state(moved) == before
