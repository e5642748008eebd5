"""A registry that refuses or does not answer: real servers and files, one sentence each."""

import importlib.util
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from hpsearch.tracking import connection
from hpsearch.tracking.connection import SCHEMA, TrackingServer, create_database
from hpsearch.tracking.mlflow_errors import (
    MlflowUnavailableError,
    format_error,
    translate_all_errors,
    translate_mlflow_errors,
)
from hpsearch.tracking.model_registry import Registry, configure_mlflow_logging

from ..servers import answering, free_port, refusing

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def forbidding() -> Iterator[str]:
    with answering(403, b"Permission denied") as address:
        yield f"http://{address}"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    configure_mlflow_logging()


def test_a_server_that_forbids(forbidding: str) -> None:
    registry = Registry(tracking=TrackingServer(uri=forbidding), model="m")
    with pytest.raises(MlflowUnavailableError, match=forbidding) as caught:
        registry.champion()
    assert caught.value.code == "mlflow-credentials"
    assert "MLFLOW_TRACKING_PASSWORD" in str(caught.value)


def test_a_server_that_is_not_there_is_not_a_registry_without_a_champion() -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(MlflowUnavailableError, match=uri) as caught:
        Registry(tracking=TrackingServer(uri=uri), model="m").champion()
    assert caught.value.code == "mlflow-unreachable"


def test_a_check_without_an_answer_gives_up_after_one_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with refusing() as (address, asked):
        server = TrackingServer(uri=f"http://{address}")
        server.check_experiment()  # a search trains without MLflow
        assert len(asked) == 2
        with pytest.raises(MlflowUnavailableError) as error:
            server.check_experiment(must_answer=True)
    assert error.value.code == "mlflow-unreachable"
    assert address in str(error.value)


def test_a_full_disk_is_not_blamed_on_the_address() -> None:
    error = OSError(28, "No space left on device")
    with (
        pytest.raises(MlflowUnavailableError, match=r"sqlite:////x/mlflow\.db") as caught,
        translate_mlflow_errors("sqlite:////x/mlflow.db"),
    ):
        raise error
    assert caught.value.code == "mlflow-disk-full"
    assert "--tracking-uri" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [KeyError("seen"), AttributeError("x"), TypeError("y"), ValueError("not valid JSON")]
)
def test_a_bug_of_ours_is_not_blamed_on_the_server(error: Exception) -> None:
    with pytest.raises(type(error)), translate_all_errors("http://127.0.0.1:1"):
        raise error
    if not isinstance(error, ValueError):  # as the thread that sends runs would show it
        assert "is not MLflow" not in format_error(error, "http://127.0.0.1:1")
        assert type(error).__name__ in format_error(error, "http://127.0.0.1:1")


def test_an_answer_that_makes_mlflow_itself_stumble_is_blamed_on_the_server() -> None:
    with answering(200, b'["no object"]') as address:
        server = TrackingServer(uri=f"http://{address}")
        with (
            pytest.raises(MlflowUnavailableError) as caught,
            translate_all_errors(server.uri),
        ):
            server.experiment_id()
        assert caught.value.code == "not-mlflow"


@pytest.mark.parametrize(
    ("revision", "code", "whose"),
    [
        ("ffffffffffff", "mlflow-schema-newer", "a newer"),
        ("0584bdc529eb", "mlflow-schema-older", "an older"),
    ],
)
def test_a_database_of_another_mlflow_is_told_whose_is_newer(
    tmp_path: Path, revision: str, code: str, whose: str
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    TrackingServer(uri=uri).client().search_experiments()
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    mlflow_again = (
        "from hpsearch.tracking.connection import TrackingServer\n"
        "from hpsearch.tracking.mlflow_errors import translate_all_errors\n"
        f"with translate_all_errors({uri!r}):\n"
        f"    TrackingServer(uri={uri!r}).client().search_experiments()"
    )
    done = subprocess.run(
        [sys.executable, "-c", mlflow_again], capture_output=True, text=True, check=False
    )  # MLflow checks a database once a process
    last = done.stderr.strip().splitlines()[-1]
    assert f"written by {whose} MLflow than the installed" in last
    with pytest.raises(MlflowUnavailableError) as caught, translate_mlflow_errors(uri):
        raise MlflowException(
            f"Detected out-of-date database schema (found version {revision}, but expected x). "
            "Take a backup of your database, then run 'mlflow db upgrade <database_uri>'"
        )
    assert caught.value.code == code
    assert ("mlflow db upgrade" in str(caught.value)) == (whose == "an older")


def test_the_prepared_database_is_the_one_that_mlflow_creates() -> None:
    path = Path(__file__).parents[2] / ".ci/mlflow_schema.py"
    spec = importlib.util.spec_from_file_location("mlflow_schema", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def statements(text: str) -> list[list[str]]:
        # the order of a table's constraints varies from run to run
        found = [part.strip().splitlines() for part in text.split(";\n")]
        return sorted(sorted(line.strip(" \t,") for line in part) for part in found)

    made, stored = script.schema(), SCHEMA.read_text("utf-8")
    assert statements(made) == statements(stored), f"another MLflow is installed; run {path}"


def tables(path: Path) -> list[tuple[str]]:
    with sqlite3.connect(path) as database:
        return database.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()


def test_a_missing_database_is_created_ready_for_use(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    server = TrackingServer(uri=f"sqlite:///{path}")
    create_database(server.uri)
    before = tables(path)
    assert [e.name for e in server.client().search_experiments()] == ["Default"]
    assert tables(path) == before, "MLflow had nothing to migrate"
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]


def test_the_client_creates_a_missing_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.MlflowClient", lambda **addresses: addresses)
    TrackingServer(uri=f"sqlite:///{tmp_path / 'mlflow.db'}").client()
    assert ("alembic_version",) in tables(tmp_path / "mlflow.db")


def test_what_cannot_be_created_here_is_left_to_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there.db"
    there.write_bytes(b"whatever")
    for uri in (f"sqlite:///{there}", f"sqlite:///{tmp_path}/none/m.db", "http://127.0.0.1:1"):
        create_database(uri)
    monkeypatch.setattr(connection, "version", lambda name: "2.0.0")
    create_database(f"sqlite:///{tmp_path / 'other.db'}")
    assert there.read_bytes() == b"whatever"
    assert [file.name for file in tmp_path.iterdir()] == ["there.db"]
