"""An address that is given beats every variable; jobs go where it is said that they go."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray
from ray.util.state.exception import RayStateApiException

from hpsearch.execution import ray_runtime
from hpsearch.execution.job_client import JobClient
from hpsearch.search.resources import Resources
from hpsearch.workflows import search_session
from hpsearch.workflows.observer import Observer

from ..servers import serving


@contextmanager
def head() -> Iterator[tuple[str, list[str]]]:
    """``http://HOST:PORT`` of a server that answers as a head does, and what it was asked."""
    asked: list[str] = []
    answers = {
        "/api/version": {"version": "4", "ray_version": ray.__version__, "ray_commit": ""},
        "/api/v0/nodes": {"result": False, "msg": "there are none"},
        "/api/jobs/": [],
    }

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked.append(f"{self.command} {path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = {"submission_id": "mine", "job_id": "mine"}
            posted = self.command == "POST"
            text = json.dumps(body if posted else answers.get(path, {})).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}", asked


@pytest.mark.parametrize("variable", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_a_job_goes_to_the_address_that_was_given(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with head() as (given, asked), head() as (other, asked_other):
        monkeypatch.setenv(variable, other)
        server = JobClient(given)
        server.submit("mine", ["search", "mine.py"], home="~/hpsearch")
        assert server.jobs() == []
        with pytest.raises(RayStateApiException, match="there are none"):
            server.check_capacity(Resources(), None)
    assert "POST /api/jobs/" in asked
    assert "GET /api/v0/nodes" in asked
    assert asked_other == []


def test_whoever_joins_a_cluster_reports_which(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder(Observer):
        def message(self, text: str) -> None:
            messages.append(text)

    for joined, expected in (
        ("10.0.0.7:6379", ["joined the Ray cluster at 10.0.0.7:6379"]),
        (None, []),
    ):
        messages: list[str] = []
        monkeypatch.setattr(ray_runtime, "start_ray", lambda joined=joined, **_: joined)
        search_session.start_ray(Recorder(), address="auto", cpus=None)
        assert messages == expected
