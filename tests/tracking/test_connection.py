"""A registry that refuses or does not answer: real servers and files, one sentence each."""

from collections.abc import Iterator

import pytest

from hpsearch.tracking.connection import (
    MlflowUnavailableError,
    TrackingServer,
    format_error,
    translate_all_errors,
)
from hpsearch.tracking.model_registry import Registry, configure_mlflow_logging

from ..servers import answering, free_port

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
    with pytest.raises(
        MlflowUnavailableError, match=f"{forbidding} refuses these credentials.*permission"
    ):
        registry.champion()


def test_a_server_that_is_not_there_is_not_a_registry_without_a_champion() -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(MlflowUnavailableError, match=f"{uri} does not answer; start it"):
        Registry(tracking=TrackingServer(uri=uri), model="m").champion()


def test_a_full_disk_is_not_blamed_on_the_address() -> None:
    error = OSError(28, "No space left on device")
    assert format_error(error, "sqlite:////x/mlflow.db") == (
        "MLflow at sqlite:////x/mlflow.db finds its disk full; make room there"
    )


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
            pytest.raises(MlflowUnavailableError, match="is not MLflow"),
            translate_all_errors(server.uri),
        ):
            server.experiment_id()
