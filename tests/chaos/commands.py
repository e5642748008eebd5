"""The real command against a cluster, in a process that can be hurt."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpsearch.search.workspace import SearchFolder, Workspace

from .searches import SPACE, wait_for
from .wholeness import trials


@dataclass(frozen=True)
class Command:
    """Runs ``hpsearch`` in a home folder; searches there are called "far"."""

    home: Path
    uri: str

    @property
    def folder(self) -> SearchFolder:
        return Workspace(self.home).open("far")

    def write_space(self, *, patches: int, trials: int, reports: int) -> Path:
        self.home.mkdir(exist_ok=True)
        path = self.home / "space.py"
        path.write_text(SPACE.format(patches=patches, trials=trials, reports=reports))
        return path

    def begin(self, *words: object) -> subprocess.Popen[bytes]:
        """In a session of its own; it heeds SIGINT, which a shell's background ignores."""
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        home = ["--home", str(self.home), "--tracking-uri", self.uri]
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "hpsearch", *map(str, words), *home],
                stdout=log, stderr=log, start_new_session=True, preexec_fn=heed,
                env={**os.environ, "COLUMNS": "100", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
            )  # fmt: skip

    def search(self, space: Path, data: Path, address: str) -> subprocess.Popen[bytes]:
        options = ("--data", data, "--address", address, "--device", "cpu")
        return self.begin("search", space, "--name", "far", *options)

    def wait_for_reports(self, count: int, process: subprocess.Popen[bytes]) -> None:
        """Until each running trial has reported so often."""

        def come() -> bool:
            assert process.poll() is None, self.said()
            if not (self.home / "searches" / "far").exists():
                return False
            running = trials(self.folder)
            return bool(running) and all(len(run.reports) >= count for run in running)

        wait_for(come, 200)

    def finish(self, process: subprocess.Popen[bytes], code: int = 0) -> None:
        assert process.wait(timeout=300) == code, self.said()

    def said(self) -> str:
        return (self.home / "log").read_text()[-3000:]
