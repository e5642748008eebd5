"""The shell is offered the names that a command can take."""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from hpsearch.cli import app
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.event_log import EventLog

from ..end_to_end.sample_search import write_trials

Offered = Callable[..., list[str]]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Offered:
    """Completions of the last word, as the script that bash runs asks for them."""

    def ask(*words: str) -> list[str]:
        monkeypatch.setenv("_HPSEARCH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", shlex.join(["hpsearch", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        capsys.readouterr()
        with pytest.raises(SystemExit):
            app(prog_name="hpsearch")
        return capsys.readouterr().out.split()

    return ask


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two searches, the second the later one; the first has three trials."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPSEARCH_HOME", str(tmp_path / "home"))
    for age, name in enumerate(("wide", "narrow")):
        folder = tmp_path / "home" / "searches" / name
        folder.mkdir(parents=True)
        (folder / "search.json").write_text("{}")
        os.utime(folder / "search.json", (1e9 + age, 1e9 + age))
    write_trials(EventLog(tmp_path / "home" / "searches" / "wide" / "ledger.jsonl"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    "command",
    ["report", "resume", "extend", "status", "logs", "stop", "show", "pause", "try", "note", "rm",
     "concurrency", "archive", "promote", "sync", "ui", "compare"],
)  # fmt: skip
def test_a_command_that_takes_a_search_is_offered_those_of_the_home(
    command: str, home: Path, offered: Offered
) -> None:
    assert offered(command, "") == ["narrow", "wide"]
    assert offered(command, "w") == ["wide"]


def test_the_home_of_the_option_is_read(home: Path, tmp_path: Path, offered: Offered) -> None:
    (tmp_path / "other" / "searches" / "far").mkdir(parents=True)
    (tmp_path / "other" / "searches" / "far" / "search.json").write_text("{}")
    assert offered("report", "--home", str(tmp_path / "other"), "") == ["far"]
    assert offered("report", "--home", str(tmp_path / "none"), "") == []
    assert offered("report", "--home", "s3://bucket/home", "") == []


def test_spaces_are_python_files_and_folders(home: Path, tmp_path: Path, offered: Offered) -> None:
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "mine.py").touch()
    (tmp_path / "spaces" / "mine.txt").touch()
    assert offered("search", "spa") == ["spaces/"]
    assert offered("search", "spaces/m") == ["spaces/mine.py"]
    assert offered("submit", "spaces/") == ["spaces/mine.py"]


def test_trials_are_offered_once_their_search_is_named(home: Path, offered: Offered) -> None:
    assert offered("train", "wi") == ["wide/"]
    assert offered("train", "wide/") == ["wide/000", "wide/001", "wide/002"]
    assert offered("describe", "wide/00") == ["wide/000", "wide/001", "wide/002"]
    assert offered("evaluate", "hp") == ["hpsearch-base"]
    assert offered("match", "a.jpg", "b.jpg", "--model", "r") == ["rootsift"]


def test_registered_models_are_offered_by_alias(home: Path, offered: Offered) -> None:
    client: MlflowClient = Workspace(home).tracking().client()
    client.create_registered_model("mine")
    client.create_model_version("mine", source=(home / "model").as_uri())
    client.set_registered_model_alias("mine", "champion", "1")
    assert offered("describe", "models") == ["models:/mine@champion"]
    assert offered("ensemble", "m") == ["mine@champion"]
