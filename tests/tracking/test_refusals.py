"""A registry that refuses or does not answer: real servers and files, one sentence each."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from hpsearch.tracking.refusals import Refused, sentence
from hpsearch.tracking.registry import Registry, quieten_mlflow
from hpsearch.tracking.server import Tracking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


class Forbidding(BaseHTTPRequestHandler):
    """Says 403 to everything."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()
        self.wfile.write(b"Permission denied")

    do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture
def forbidding() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Forbidding)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    quieten_mlflow()


def test_a_server_that_forbids(forbidding: str) -> None:
    registry = Registry(tracking=Tracking(uri=forbidding), model="m")
    with pytest.raises(Refused, match=f"{forbidding} refuses these credentials.*permission"):
        registry.champion()


def test_a_server_that_is_not_there_is_not_a_registry_without_a_champion() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Refused, match=f"{uri} does not answer; start it"):
        Registry(tracking=Tracking(uri=uri), model="m").champion()


def test_a_full_disk_is_not_blamed_on_the_address() -> None:
    error = OSError(28, "No space left on device")
    assert sentence(error, "sqlite:////x/mlflow.db") == (
        "MLflow at sqlite:////x/mlflow.db finds its disk full; make room there"
    )
