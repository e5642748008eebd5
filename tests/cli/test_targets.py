"""Commands that write, on targets that refuse: one sentence before any work, and nothing left."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from hpsearch.cli import app, main

from ..mounts import fill, read_only, small_disk
from .conftest import SLOW_WITH_MLFLOW

pytestmark = SLOW_WITH_MLFLOW
FILES = [
    (("data", "import"), ["HPATCHES", "--output"]),
    (("data", "photos"), ["PHOTOS", "--output"]),
    (("data", "sequences"), ["PHOTOS", "--output"]),
    (("data", "phototour"), ["PHOTOS", "--output"]),
    (("data", "arrays"), ["ARRAY", "--points", "ARRAY", "--output"]),
    (("match",), ["PICTURE", "PICTURE", "--output"]),
    (("data", "preview"), ["STORE", "--output"]),
    (("report",), ["one", "--output"]),
    (("compare",), ["one", "two", "--output"]),
    (("report",), ["one", "--json"]),
    (("report",), ["one", "--csv"]),
    (("archive",), ["one", "--output"]),
    (("describe",), ["models:/patches@champion", "STORE", "--output"]),
    (("evaluate",), ["models:/patches@champion", "--data", "STORE", "--json"]),
    (("export",), ["models:/patches@champion", "--onnx"]),
]
"""Commands that write a file, with their words up to it."""
FOLDERS = [
    (("train",), ["TRIAL", "--data", "STORE", "--output"]),
    (("describe",), ["models:/patches@champion", "STORE", "--output"]),
    (("evaluate",), ["models:/patches@champion", "--data", "STORE", "--output"]),
]
"""Commands that write a folder, with their words up to it."""
HOMES = {
    ("data", "build"): ["tiny", "--home"],
    ("search",): ["SPACE", "--data", "STORE", "--home"],
    ("resume",): ["one", "--home"],
    ("extend",): ["one", "--trials", "1", "--home"],
    ("train",): ["TRIAL", "--data", "STORE", "--output", "OUT", "--home"],
    ("sync",): ["one", "--home"],
    ("promote",): ["one", "--home"],
    ("ensemble",): ["patches@1", "patches@2", "--name", "both", "--home"],
    ("rollback",): ["patches", "--home"],
    ("reproduce",): ["--home"],
}
"""Commands that write the home, with their words up to it."""
READS_HOME = {
    ("data", "info"), ("data", "preview"), ("report",), ("compare",), ("ui",),
    ("describe",), ("evaluate",),
    ("export",), ("match",), ("list",), ("status",), ("show",), ("du",), ("doctor",), ("archive",),
}  # fmt: skip
"""Commands that only read the home; ``test_read_only_home.py`` is about them."""
NO_LOCAL_HOME = {("submit",), ("logs",)}
NEEDS_MORE = {("pause",), ("stop",), ("try",), ("rm",), ("note",), ("concurrency",)}
"""Commands that append one line, which a full disk may still hold, or ask first;
``test_steer_search.py`` is about them."""
SUFFIX = {"export": ".onnx", "describe": ".npy", "data": ".arrow", "match": ".png"}
WORK = (
    "hpsearch.workflows.train_trial.train_trial",
    "hpsearch.workflows.evaluate_models.evaluate_models",
    "hpsearch.workflows.describe_patches.describe_patches",
    "hpsearch.workflows.search_session.run_session",
    "hpsearch.workflows.resume_search.run_session",
    "hpsearch.models.onnx_export.export_onnx",
    "hpsearch.data.hpatches_import.import_tree",
    "hpsearch.data.photo_folder.import_photos",
    "hpsearch.data.image_sequences.import_sequences",
    "hpsearch.data.phototour.import_phototour",
    "hpsearch.data.array_import.import_arrays",
    "hpsearch.workflows.match_images.match_images",
    "hpsearch.data.builtin_sets.write_store",
    "hpsearch.execution.ray_runtime.start_ray",
    "hpsearch.promotion.ensemble.load_members",
    "hpsearch.workflows.reproduce.reproduce",
)
"""Functions that begin the work of these commands."""


@pytest.fixture
def refusal(
    material: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command whose target refuses; its one sentence."""

    def began(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the work began")

    for name in WORK:
        monkeypatch.setattr(name, began, raising=False)

    def run(*words: object) -> str:
        given = [str(material.get(str(word), word)) for word in words]
        monkeypatch.setattr(sys, "argv", ["hpsearch", *given])
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow keeps it there
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        error = capsys.readouterr().err
        assert ended.value.code == 2, error
        assert error.startswith("error: "), error
        assert error.count("\n") == 1, error
        return error

    return run


def commands() -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Every command with its options."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(app))]
    while pending:
        name, command = pending.pop()
        for part, sub in getattr(command, "commands", {}).items():
            pending.append(((*name, part), sub))
        if not hasattr(command, "commands"):
            yield name, {option for param in command.params for option in param.opts}


def test_every_command_that_writes_is_in_the_tables() -> None:
    for name, options in commands():
        if "--home" in options:
            assert name in HOMES.keys() | READS_HOME | NO_LOCAL_HOME | NEEDS_MORE, name
        written = {words[-1] for known, words in FILES + FOLDERS if known == name}
        assert options & {"--output", "--json", "--csv", "--onnx"} == written, name


CASES = [
    *[(name, words, "file") for name, words in FILES],
    *[(name, words, "folder") for name, words in FOLDERS],
]


def target_name(name: tuple[str, ...], kind: str) -> str:
    return f"target{SUFFIX.get(name[0], '.html')}" if kind == "file" else "target"


@pytest.mark.parametrize(
    ("name", "words", "kind"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(x)
)
def test_an_output_that_cannot_be_written_is_refused_before_work(
    name: tuple[str, ...], words: list[str], kind: str, refusal: Callable[..., str],
    tmp_path: Path, material: dict[str, Path],
) -> None:  # fmt: skip
    target = target_name(name, kind)
    home = ["--home", "HOME"] if "--home" in dict(commands())[name] else []
    missing = Path("/proc/nope") / target
    assert str(missing) in refusal(*name, *words, missing, *home)
    occupied = tmp_path / target
    occupied.write_text("") if kind == "folder" else (occupied / "more").mkdir(parents=True)
    assert str(occupied) in refusal(*name, *words, occupied, *home)
    below = tmp_path / "file" / target
    (tmp_path / "file").write_text("")
    assert str(below) in refusal(*name, *words, below, *home)
    (tmp_path / "disk").mkdir()
    with read_only(tmp_path / "disk", tmp_path / "ro") as disk:
        for path in (disk / target, disk / "new" / target):
            assert str(path) in refusal(*name, *words, path, *home)
    with small_disk(tmp_path / "small", 64) as disk:
        fill(disk)
        assert str(disk / target) in refusal(*name, *words, disk / target, *home)
        assert [path.name for path in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize(
    ("name", "words"), HOMES.items(), ids=lambda x: "-".join(x) if isinstance(x, tuple) else ""
)
def test_a_home_that_cannot_be_written_is_refused_before_work(
    name: tuple[str, ...], words: list[str], refusal: Callable[..., str], tmp_path: Path,
    material: dict[str, Path],
) -> None:  # fmt: skip
    home = material["HOME"]
    assert "/proc/nope" in refusal(*name, *words, "/proc/nope")
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in refusal(*name, *words, tmp_path / "file")
    with read_only(home, tmp_path / "ro") as disk:
        assert str(disk) in refusal(*name, *words, disk)
    with small_disk(tmp_path / "small", 16_000) as disk:
        shutil.copytree(home, disk, dirs_exist_ok=True)
        fill(disk)
        before = sorted(path for path in disk.rglob("*"))
        error = refusal(*name, *words, disk)
        assert str(disk) in error
        assert sorted(path for path in disk.rglob("*")) == before


def test_a_full_temporary_folder_is_one_sentence(
    refusal: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "small", 64) as disk:
        fill(disk)
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        words = ("models:/patches@champion", "--onnx", tmp_path / "x.onnx", "--home", "HOME")
        said = refusal("export", *words)
        assert str(disk) in said
        assert "free some space" in said
