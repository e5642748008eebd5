"""The real command against a cluster, in a process that can be hurt."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace

from .. import processes
from .searches import reported, wait_for


@dataclass(frozen=True)
class Command:
    """Runs ``hpsearch`` in a home folder; searches there are called "far"."""

    home: Path
    uri: str

    @property
    def context(self) -> SearchContext:
        return Workspace(self.home).open("far")

    def write_space(self, space: str) -> Path:
        self.home.mkdir(exist_ok=True)
        path = self.home / "space.py"
        path.write_text(space)
        return path

    def begin(self, *words: object, **variables: str) -> subprocess.Popen[bytes]:
        home = ("--home", self.home, "--tracking-uri", self.uri)
        variables = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", **variables}
        return processes.begin(*words, *home, log=self.home / "log", **variables)

    def search(
        self, space: Path, data: Path, address: str, *options: object, **variables: str
    ) -> subprocess.Popen[bytes]:
        options = ("--data", data, "--address", address, "--device", "cpu", *options)
        return self.begin("search", space, "--name", "far", *options, **variables)

    def wait_for_reports(self, count: int, process: subprocess.Popen[bytes]) -> None:
        """Until each running trial has reported so often."""

        def come() -> bool:
            assert process.poll() is None, self.output()
            there = (self.home / "searches" / "far").exists()
            return there and reported(self.context, count)

        wait_for(come, 600)

    def finish(self, process: subprocess.Popen[bytes], code: int = 0) -> None:
        assert process.wait(timeout=1_200) == code, self.output()

    def output(self) -> str:
        return (self.home / "log").read_text()[-3000:]


@dataclass(frozen=True)
class Jobs:
    """Runs ``hpsearch`` against the job server of a cluster."""

    address: str

    def run(self, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        variables = {"HPSEARCH_ADDRESS": self.address, "COLUMNS": "200", **variables}
        return processes.run(*words, timeout=600, **variables)

    def wait_for(self, name: str, words: str, seconds: float) -> None:
        """Until ``hpsearch status`` of a search says so."""
        deadline = time.monotonic() + seconds
        while words not in (output := self.run("status", name)).stdout:
            assert output.returncode == 0, output.stderr
            assert time.monotonic() < deadline, output.stdout
            time.sleep(0.5)
