"""The shell is offered the names that a command can take."""

import os
import shlex
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from hpsearch.cli import app, completion
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.event_log import EventLog

from ..end_to_end.sample_search import write_trials
from ..servers import answering, free_port

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
    monkeypatch.setattr(completion, "SERVER_WAIT_S", 60.0)  # this machine may be busy
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


ANSWER = b"""{"registered_models": [
    {"name": "theirs", "aliases": [{"alias": "champion", "version": "2"}]},
    {"name": "bare"},
    {"name": "$(touch owned)", "aliases": [{"alias": "champion", "version": "1"}]}
]}"""


def test_those_of_a_tracking_server_are_offered(
    home: Path, offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(200, ANSWER) as address:
        server = f"http://ann:secret@{address}/"
        assert offered("describe", "--tracking-uri", server, "m") == ["models:/theirs@champion"]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
        assert offered("ensemble", "") == ["theirs@champion"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"registered_models": [{"aliases": 3}]}'])
def test_a_server_that_gives_no_answer_is_passed_over(
    body: bytes, home: Path, offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(200, body) as address:
        assert offered("ensemble", "--tracking-uri", f"http://{address}", "") == []
    for gone in (f"http://127.0.0.1:{free_port()}", "http://$NOT_SET:$X@host", "postgresql://h/d"):
        assert offered("ensemble", "--tracking-uri", gone, "") == []
    monkeypatch.setattr(completion, "SERVER_WAIT_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        port = silent.getsockname()[1]
        assert offered("ensemble", "--tracking-uri", f"http://127.0.0.1:{port}", "") == []


def test_the_address_reaches_a_server_with_its_credentials(
    home: Path, offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = list[str | None]()
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda request, timeout: sent.append(
            f"{request.full_url.split('?')[0]} {request.get_header('Authorization')}"
        )
    )  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    offered("ensemble", "--tracking-uri", "https://a%40b:c@host/mlflow/", "")
    offered("ensemble", "--tracking-uri", "https://host", "")
    path = "/api/2.0/mlflow/registered-models/search"
    assert sent == [f"https://host/mlflow{path} Basic YUBiOmM=", f"https://host{path} Bearer t0ken"]
