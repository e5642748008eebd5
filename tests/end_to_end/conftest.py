"""Real searches by the real command, on the tiny set, with real Ray and SQLite."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.run_state import Run, runs_from

from ..processes import begin, run, run_here

SPACE = Path(__file__).with_name("space.py")
EXECUTIONS = "HPSEARCH_TEST_EXECUTIONS"
"""Variable that names the file in which ``space.py`` notes each of its executions."""


@dataclass(frozen=True)
class Home:
    """A workspace, and the command in it."""

    path: Path
    store: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a command in this home; ``space.py`` reads the second."""
        return {"HPSEARCH_HOME": str(self.path), EXECUTIONS: str(self.executions_file)}

    @property
    def executions_file(self) -> Path:
        """It lies beside the home, which a refused command must not create."""
        return self.path.with_name(f"{self.path.name}-executions")

    def run(self, *words: object, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        return run(*words, timeout=timeout, **self.environment)

    def begin(self, *words: object, log: Path) -> subprocess.Popen[bytes]:
        return begin(*words, log=log, **self.environment)

    def run_here(self, *words: object) -> subprocess.CompletedProcess[str]:
        """In this process, where all libraries are loaded."""
        return run_here(*words, **self.environment)

    def twice(self, *words: object) -> tuple[str, str]:
        """Give a command twice at once: what the one prints, and why the other is refused."""
        with ThreadPoolExecutor(2) as threads:
            both = [*threads.map(lambda _: self.run(*words), range(2))]
        both.sort(key=lambda done: done.returncode)
        assert [done.returncode for done in both] == [0, 2], [d.stdout + d.stderr for d in both]
        return both[0].stdout, both[1].stderr

    def executions(self) -> int:
        """Count the executions of ``space.py`` since the last call, in whatever process."""
        path = self.executions_file
        count = len(path.read_text().splitlines()) if path.exists() else 0
        path.unlink(missing_ok=True)
        return count

    def event_log(self, name: str) -> EventLog:
        return EventLog(self.path / "searches" / name / "ledger.jsonl")

    def runs(self, name: str) -> list[Run]:
        return runs_from(self.event_log(name).events())


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> Home:
    return Home(tmp_path_factory.mktemp("home"), tiny.path)
