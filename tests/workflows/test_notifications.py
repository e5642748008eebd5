"""Messages to a web address and a program: content, signature, retries, and no waiting."""

import hmac
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.workflows.callbacks import with_callbacks
from hpsearch.workflows.notifications import (
    SECRET_ENV,
    SIGNATURE_HEADER,
    Notifier,
    check_target,
    signature,
)

from ..search_factory import plan
from .test_callbacks import SPACE, log_trial


class Server(HTTPServer):
    """Keeps what is posted; refuses so many requests first."""

    refusals = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict] = []
        self.signatures: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refusals:
            self.server.refusals -= 1
            self.send_response(503)
        else:
            self.server.bodies.append(json.loads(body))
            self.server.signatures.append((self.headers.get(SIGNATURE_HEADER, ""), body))
            self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_failures_bests_and_the_end_are_sent_signed_and_retried(
    server: Server, tmp_path: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_ENV, "a secret")
    server.refusals = 2
    context = plan(tmp_path / "home", tiny, SPACE, trials=3)
    log_trial(context, 0, "completed", 0.5)
    notifier = Notifier([server.url], retry_waits=(0.01, 0.01, 0.01))
    observer = with_callbacks(None, [notifier])
    with observer.training(context):
        log_trial(context, 1, "completed", 0.4)
        log_trial(context, 2, "completed", 0.7)
        log_trial(context, 3, "failed")
    observer.search_ended(None, ValueError("the disk is full"))
    found = [(body["event"], body["search"]) for body in server.bodies]
    assert found == [("new-best", "far"), ("trial-failed", "far"), ("search-failed", "far")]
    assert server.bodies[0]["trial"] == "002"
    assert server.bodies[0]["value"] == 0.7
    assert server.bodies[2]["reason"] == "the disk is full"
    for sent, body in server.signatures:
        assert sent == signature(body, "a secret")
        digest = hmac.new(b"a secret", body, "sha256").hexdigest()
        assert sent == f"sha256={digest}"


def test_silence_is_sent_once_until_a_report(server: Server) -> None:
    notifier = Notifier([server.url], idle_seconds=100)
    for seconds in (50, 100, 150, 200):
        notifier.on_wait(seconds)
    notifier.on_search_end(None, KeyboardInterrupt())
    events = [body["event"] for body in server.bodies]
    assert events == ["no-progress", "search-failed"]


def test_a_program_receives_json_on_its_standard_input(tmp_path: Path) -> None:
    target, program = tmp_path / "got.json", tmp_path / "program.py"
    program.write_text(f"import sys; open({str(target)!r}, 'a').write(sys.stdin.read())")
    notifier = Notifier([f"{sys.executable} {program}"])
    notifier.on_wait(1e9)
    notifier.on_search_end(None, KeyboardInterrupt())
    events = [json.loads(line)["event"] for line in target.read_text().splitlines()]
    assert events == ["no-progress", "search-failed"], "a line each"


def test_a_target_that_fails_is_given_up() -> None:
    notifier = Notifier([f"{sys.executable} -c 'raise SystemExit(3)'"], retry_waits=(0.0,))
    notifier.on_search_end(None, KeyboardInterrupt())
    assert len(notifier.failures) == 1
    assert "exit status 3" in notifier.failures[0]


@pytest.mark.parametrize("target", ["", "no-such-program-anywhere now", "python 'unclosed"])
def test_a_target_that_is_none_is_refused(target: str) -> None:
    with pytest.raises(UserError) as caught:
        check_target(target)
    assert caught.value.code == "invalid-notify-target"
