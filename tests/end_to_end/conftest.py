"""Real searches by the real command, on the tiny set, with real Ray and SQLite."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from hpsearch.data.store import PatchStore
from hpsearch.tracking.ledger import Ledger
from hpsearch.tracking.runs import Run, runs_from

SPACE = Path(__file__).with_name("space.py")


@dataclass(frozen=True)
class Home:
    """A workspace, and the command in it."""

    path: Path
    store: Path

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "hpsearch", *(str(word) for word in words)]

    @property
    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if "MLFLOW_TRACK" not in key}
        return {
            **inherited,
            "HPSEARCH_HOME": str(self.path),
            "COLUMNS": "100",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *words: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.environment, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip

    def begin(self, *words: object, log: Path) -> subprocess.Popen[bytes]:
        """Start in a session of its own, so that a signal reaches it alone.

        It heeds SIGINT even where these tests run in the background of a shell, which ignores it.
        """
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with log.open("wb") as out:
            return subprocess.Popen(
                self.command(*words), env=self.environment, stdout=out, stderr=out,
                start_new_session=True, preexec_fn=heed,
            )  # fmt: skip

    def ledger(self, name: str) -> Ledger:
        return Ledger(self.path / "searches" / name / "ledger.jsonl")

    def runs(self, name: str) -> list[Run]:
        return runs_from(self.ledger(name).events())


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> Home:
    return Home(tmp_path_factory.mktemp("home"), tiny.path)
