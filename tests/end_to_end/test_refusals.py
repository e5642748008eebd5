"""Bad input: one sentence on standard error, exit code 2, and nothing left behind."""

import socket
from pathlib import Path

import pytest

from hpsearch.config import TrialConfig
from hpsearch.search.workspace import Workspace

from .conftest import SPACE, Home

pytestmark = pytest.mark.slow

BAD_SPACE = """
def suggest(trial):
    raise RuntimeError("on purpose")
from hpsearch.config import TrialConfig
from hpsearch.search.search import Search
SEARCH = Search(suggest=suggest, budget=9, report_every=3, trials=1, baseline=TrialConfig())
"""


def refused(home: Home, *words: object) -> str:
    done = home.run_here(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert done.stderr.count("\n") == 1, "one sentence"
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def fresh(home: Home, tmp_path: Path) -> Home:
    return Home(tmp_path / "home", home.store)


def test_a_wrong_path(fresh: Home) -> None:
    assert "nowhere.py" in refused(fresh, "search", "nowhere.py")
    assert not fresh.path.exists()


def test_a_space_that_raises(fresh: Home, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD_SPACE)
    assert "suggest raised RuntimeError at bad.py:3 (on purpose)" in refused(
        fresh, "search", tmp_path / "bad.py"
    )
    assert not fresh.path.exists()


def test_an_unknown_setting(fresh: Home, tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text('{"colour": "red"}')
    assert "no setting 'colour'" in refused(fresh, "train", path)


def test_an_unknown_precision(fresh: Home, tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text("{}")
    words = refused(fresh, "train", path, "--precision", "float16")
    assert "'precision' is wrong" in words
    assert "'bfloat16'" in words, "says what there is"


def test_a_store_that_is_none(fresh: Home, tmp_path: Path) -> None:
    (tmp_path / "store.arrow").write_bytes(b"not a store")
    words = refused(fresh, "search", SPACE, "--data", tmp_path / "store.arrow")
    assert "not a usable patch store" in words
    assert not (fresh.path / "searches").exists()


def test_a_test_sequence_asked_for_in_training(fresh: Home, tmp_path: Path) -> None:
    path = tmp_path / "trial.json"
    path.write_text(TrialConfig(patches=100).model_dump_json())
    words = refused(
        fresh, "train", path, "--data", fresh.store, "--sequences", "i_astronaut,v_rocket"
    )
    assert "'i_astronaut' is a test sequence" in words


def test_a_port_in_use(fresh: Home) -> None:
    assert "there is no MLflow database" in refused(fresh, "ui")
    Workspace(fresh.path).tracking().experiment_id()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} is in use" in refused(fresh, "ui", "--port", port)


def test_a_search_name_that_exists(fresh: Home) -> None:
    (fresh.path / "searches" / "twice").mkdir(parents=True)
    words = refused(fresh, "search", SPACE, "--name", "twice", "--data", fresh.store)
    assert "it holds no search that can be opened; move it away" in words


def test_a_search_that_does_not_exist(fresh: Home) -> None:
    assert "no search 'ghost'" in refused(fresh, "resume", "ghost")
    assert "no search" in refused(fresh, "report")


def test_a_model_that_does_not_exist(fresh: Home) -> None:
    words = refused(fresh, "describe", "models:/nobody@champion", fresh.store, "--output", "x")
    assert "models:/nobody@champion" in words
    assert "'nobody' is not a model" in refused(
        fresh, "describe", "nobody", fresh.store, "--output", "x"
    )


def test_an_unknown_split(fresh: Home) -> None:
    words = refused(fresh, "search", SPACE, "--data", fresh.store, "--split", "z")
    assert "unknown split 'z'" in words
