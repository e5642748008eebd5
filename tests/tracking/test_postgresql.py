"""PostgreSQL behind MLflow: killed in the middle, nothing is lost, and no password is kept."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from hpsearch.tracking.connection import resolve_tracking
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_sync import MlflowSync

from .outages import begin, expected, found, free_port, wait_for_events, write_trials

pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed")
BIN = next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.chaos,
    pytest.mark.skipif(BIN is None, reason="PostgreSQL is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
PASSWORD = "s3cr%2Ft"


@dataclass
class Database:
    """A cluster of its own, on a port of its own; PostgreSQL refuses to run as root."""

    folder: Path
    port: int

    @property
    def uri(self) -> str:
        return f"postgresql://someone:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def run(self, *words: str) -> None:
        assert BIN is not None
        start = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
        with (self.folder / "out").open("ab") as out:  # a pipe would wait for the server to end
            command = [*start, str(BIN / words[0]), *words[1:]]
            subprocess.run(command, check=True, stdout=out, stderr=out, timeout=60, cwd="/")

    def create(self) -> None:
        password = self.folder / "password"
        password.write_text("s3cr/t\n")
        password.chmod(0o644)
        data = str(self.folder / "data")
        self.run("initdb", "-D", data, "-U", "someone", "-A", "md5", f"--pwfile={password}", "-N")

    def control(self, verb: str, *words: str) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", *words, verb)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -h 127.0.0.1"
        self.control("start", "-l", str(self.folder / "log"), "-o", options)


@pytest.fixture
def database() -> Iterator[Database]:
    folder = Path(f"/tmp/hpsearch-postgresql-{os.getpid()}")  # others may not enter pytest's
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    made = Database(folder, free_port())
    made.create()
    made.start()
    yield made
    made.control("stop", "-m", "immediate")
    shutil.rmtree(folder)


def test_killed_and_restarted(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGUSER", "PGPASSWORD"):
        monkeypatch.delenv(name, raising=False)
    event_log = EventLog(tmp_path / "ledger.jsonl")
    begin(event_log)
    tracking = resolve_tracking(database.uri, tmp_path)
    assert os.environ["PGPASSWORD"] == "s3cr/t"
    feeding = MlflowSync(event_log, tracking, "pg", tmp_path / "published.json")
    feeding.sync()  # makes the tables
    feeding.start()
    writing = threading.Thread(
        target=partial(write_trials, event_log, trials=8, reports=10, pause=0.2)
    )
    writing.start()
    wait_for_events(event_log, 20)
    database.control("stop", "-m", "immediate")
    wait_for_events(event_log, 20)
    database.start()
    writing.join()
    assert feeding.stop(timeout=60), feeding.last_error
    assert found(event_log, tracking.client()) == expected(event_log)
    written = "".join(p.read_text() for p in tmp_path.iterdir() if p.is_file())
    assert "s3cr" not in written + repr(tracking) + feeding.last_error
    for name in ("PGUSER", "PGPASSWORD"):
        os.environ.pop(name)
