"""Real searches by the real command, on the tiny set, with real Ray and SQLite."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.run_state import Run, runs_from

from ..processes import begin, run

SPACE = Path(__file__).with_name("space.py")


@dataclass(frozen=True)
class Home:
    """A workspace, and the command in it."""

    path: Path
    store: Path

    def run(self, *words: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return run(*words, timeout=timeout, HPSEARCH_HOME=str(self.path))

    def begin(self, *words: object, log: Path) -> subprocess.Popen[bytes]:
        return begin(*words, log=log, HPSEARCH_HOME=str(self.path))

    def event_log(self, name: str) -> EventLog:
        return EventLog(self.path / "searches" / name / "ledger.jsonl")

    def runs(self, name: str) -> list[Run]:
        return runs_from(self.event_log(name).events())


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> Home:
    return Home(tmp_path_factory.mktemp("home"), tiny.path)
