"""A machine that its cloud takes away: the metadata server that says so, and Ray's worker on it.

The server asks for what the real ones ask for, and says what they say.
"""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

NODE = "71f536465195391eca18f54a7d9ebf3ba85a0a6b2a2354397df7ae6b"
TOKEN = "AQAEAL-of-six-hours=="


class Metadata(ThreadingHTTPServer):
    """Of a machine that goes at ``goes``, once that is set.

    ``words`` are said in place of EC2's notice; a ``status`` other than 200 means out of order.
    """

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Answer)
        self.goes: datetime | None = None
        self.words: str | None = None
        self.status = 200
        self.changed, self.asked = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def take_away(self, seconds: float) -> None:
        self.goes = datetime.now(UTC) + timedelta(seconds=seconds)
        self.changed.set()


class Answer(BaseHTTPRequestHandler):
    """EC2's with a token (IMDSv2), and Compute Engine's."""

    server: Metadata

    def do_PUT(self) -> None:
        known = self.path == "/latest/api/token"
        lives = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        self.respond(
            TOKEN if known else "", 200 if known and 0 < int(lives or 0) <= 21_600 else 400
        )

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if asked.path == "/latest/meta-data/spot/instance-action":
            self.ec2()
        elif asked.path == "/computeMetadata/v1/instance/preempted":
            self.compute_engine(parse_qs(asked.query))
        else:
            self.respond("", 404)

    def ec2(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self.respond("", 401)
        elif self.server.goes is None:
            self.respond("", 404)
        else:
            at = self.server.goes.strftime("%Y-%m-%dT%H:%M:%SZ")
            action = json.dumps({"action": "terminate", "time": at})
            self.respond(action if self.server.words is None else self.server.words)

    def compute_engine(self, options: dict[str, list[str]]) -> None:
        if self.headers.get("Metadata-Flavor") != "Google":
            self.respond("", 403)
            return
        if options.get("wait_for_change") == ["true"] and self.server.goes is None:
            self.server.asked.set()
            self.server.changed.wait(float(options["timeout_sec"][0]))
        self.respond("TRUE" if self.server.goes else "FALSE")

    def respond(self, words: str, status: int = 200) -> None:
        self.send_response(self.server.status if status == 200 else status)
        self.end_headers()
        self.wfile.write(words.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def metadata(port: int = 0) -> Iterator[Metadata]:
    with Metadata(port) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.changed.set()
            server.shutdown()


@contextmanager
def raylet(folder: Path, *more: str, head: str = "127.0.0.1:1") -> Iterator[int]:
    """A process that looks as Ray's does in the list of processes; its id."""
    options = [f"--node_id={NODE}", f"--temp_dir={folder}", f"--gcs-address={head}", *more]
    words = [f"{folder}/ray/core/src/ray/raylet/raylet", "-c", "read line", *options]
    with subprocess.Popen(words, executable="/bin/sh", stdin=subprocess.PIPE) as process:
        command = Path(f"/proc/{process.pid}/cmdline")
        while not command.read_bytes():  # the kernel fills it in just after Popen has returned
            time.sleep(0.001)
        yield process.pid
        process.kill()
