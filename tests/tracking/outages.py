"""Faults for the tracking server, and a search of eight trials that goes on meanwhile."""

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient

from hpsearch.config import SGD, TrialConfig
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_mapping import report_metrics
from hpsearch.tracking.mlflow_tags import SEARCH_ID, TRIAL_ID_TAG
from hpsearch.tracking.run_state import runs_from

from ..servers import free_port

TASKS = ("verification", "matching", "retrieval")
KEYS = [f"val/{task}/{level}" for task in TASKS for level in ("easy", "hard", "tough")]
Point = tuple[str, str, int, float, int]
"""Trial, metric, step, value, milliseconds."""


@dataclass
class Server:
    """``mlflow server`` on a port of its own."""

    folder: Path
    database: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self.database]
        command += ["--artifacts-destination", str(self.folder / "files")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait(timeout=120)

    def _wait(self) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text()[-2000:])


class Proxy(socketserver.ThreadingTCPServer):
    """Stands before a server and is slow, refuses, or loses what the server answers."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.behind = port
        self.delay = 0.0
        """Seconds before an answer is passed on."""
        self.answer: bytes | None = None
        """What is answered instead of asking the server."""
        self.losing: bytes | None = None
        """The server does what it is asked, but answers to requests with this in them are lost."""

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def refuse(self, status: str, body: str = "no", kind: str = "text/plain") -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        self.answer = f"{head}Connection: close\r\n\r\n{body}".encode()

    def behave(self) -> None:
        self.delay, self.answer, self.losing = 0.0, None, None


class _Relay(socketserver.BaseRequestHandler):
    server: Proxy  # pyright: ignore[reportIncompatibleVariableOverride]
    lost = False

    def handle(self) -> None:
        try:
            behind = socket.create_connection(("127.0.0.1", self.server.behind))
        except OSError:
            return  # the server is dead, which is what it is here for
        with behind:
            back = threading.Thread(target=self._answers, args=(behind,), daemon=True)
            back.start()
            while data := _read(self.request):
                losing = self.server.losing
                self.lost = self.lost or (losing is not None and losing in data)
                if self.server.answer is not None:
                    _send(self.request, self.server.answer)
                    break
                _send(behind, data)
            _close(behind)
            _close(self.request)

    def _answers(self, behind: socket.socket) -> None:
        while data := _read(behind):
            if self.lost:
                break
            time.sleep(self.server.delay)
            _send(self.request, data)
        _close(self.request)


def _read(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def _send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:
        return  # whoever asked has gone


def _close(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    with Proxy(port) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()


def begin(event_log: EventLog) -> None:
    dataset = {"name": "tiny", "fingerprint": "f" * 64, "path": "/x", "profile": "{}"}
    event_log.append("search", params={"trials": 8}, dataset=dataset, direction="maximize")


def write_trials(event_log: EventLog, *, trials: int, reports: int, pause: float) -> None:
    """Trials side by side, each in a thread."""
    with ThreadPoolExecutor(trials) as pool:
        written = [pool.submit(_write, event_log, n, reports, pause) for n in range(trials)]
        for one in written:
            one.result()


def wait_for_events(event_log: EventLog, more: int) -> None:
    """Until so many more have been written, whatever the server does meanwhile."""
    wanted, until = len(event_log.events()) + more, time.monotonic() + 120
    while len(event_log.events()) < wanted:
        assert time.monotonic() < until, "training waits for a tracking server"
        time.sleep(0.05)


def _write(event_log: EventLog, number: int, reports: int, pause: float) -> None:
    trial = f"t{number}"
    config = TrialConfig(optimizer=SGD(lr=0.01 * (number + 1))).model_dump(mode="json")
    event_log.append("start", trial=trial, number=number, config=config)
    for i in range(1, reports + 1):
        time.sleep(pause)
        value = number + i / 1000
        metrics = {key: value + j / 7 for j, key in enumerate(KEYS)}
        event_log.append("report", trial=trial, seen=100 * i, objective=value, metrics=metrics)
    event_log.append("trial_finished", trial=trial, status="completed")


def expected(event_log: EventLog) -> list[Point]:
    """Every point that the ledger holds, in order."""
    return [
        (run.id, point.key, point.step, point.value, point.timestamp)
        for run in runs_from(event_log.events())
        for report in run.reports
        for point in sorted(report_metrics(report), key=lambda point: point.key)
    ]


def found(event_log: EventLog, client: MlflowClient) -> list[Point]:
    """Every point of the runs that MLflow has, those of a second run of a trial too."""
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    rule = f"tags.`{SEARCH_ID}` = '{event_log.search_id()}' and tags.`{TRIAL_ID_TAG}` LIKE '%'"
    rows = []
    for run in client.search_runs([experiment.experiment_id], rule):
        for key in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, key)
            trial = run.data.tags[TRIAL_ID_TAG]
            rows += [(trial, key, p.step, p.value, p.timestamp) for p in history]
    return sorted(rows, key=lambda row: (row[0], row[2], row[1]))
