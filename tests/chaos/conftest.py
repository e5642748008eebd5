"""A Ray cluster of real processes on this machine, whose nodes can be killed or blinded."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

from hpsearch.execution.ray_runtime import start_ray, stop_ray

from ..servers import free_port
from .commands import Command
from .faults import MARKED, Hold
from .network_partition import NODE, Link
from .searches import joined, wait_for

RAY = str(Path(sys.executable).with_name("ray"))
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    # a dead node is noticed after 3 s instead of 30
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}


def can_blind() -> bool:
    """Whether this user may give a process a view of its own of the file system."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0


@dataclass
class Fleet:
    """A head without CPUs for trials, and workers, each with a folder and processes of its own."""

    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    nodes: dict[str, subprocess.Popen] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self, **cpus: int) -> None:
        """A head, and workers with so many CPUs each; until all belong to the cluster."""
        self.start_head()
        for name, count in cpus.items():
            self.start_worker(name, cpus=count)
        wait_for(lambda: joined(self.address, 1 + len(cpus)))

    def join(self, *, cpus: int) -> None:
        """This process joins a cluster that has started, and waits until it has so many CPUs."""
        wait_for(lambda: joined(self.address, 1))
        start_ray(address=self.address)
        self.wait_for(cpus=cpus)

    def wait_for(self, *, cpus: int) -> None:
        """Until the cluster that this process has joined has so many."""
        wait_for(lambda: ray.cluster_resources().get("CPU") == cpus)

    def start_head(
        self, *, cpus: int = 0, dashboard: int | None = None, autoscaler: Path | None = None
    ) -> None:
        """A head.

        Args:
            autoscaler: a cluster's configuration; nodes are then started and ended as it says.
        """
        words = ["--head", "--port", str(self.port), f"--num-cpus={cpus}"]
        if self.host != "127.0.0.1":
            words += [f"--node-ip-address={self.host}"]
        words += ["--include-dashboard=false"] if dashboard is None else [
            f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0",
            f"--ray-client-server-port={free_port()}",
        ]  # fmt: skip
        if autoscaler is not None:
            words += [f"--autoscaling-config={autoscaler}"]
        self._start("head", words)

    def start_worker(
        self, name: str, *, cpus: int = 1, blind_to: Path | None = None, link: Link | None = None
    ) -> None:
        """A node, at the far end of a link if there is one.

        Args:
            blind_to: a folder that it does not see, as on a machine of its own.
        """
        words = ["--address", self.address, f"--num-cpus={cpus}"]
        if link is not None:
            words += [f"--node-ip-address={NODE}"]
        self._start(name, words, blind_to, link)

    def kill(self, name: str) -> None:
        """As when the machine goes away: nothing of the node has time to say anything."""
        node = self.nodes.pop(name)
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def stop(self) -> None:
        for name in reversed(list(self.nodes)):
            self.kill(name)
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(
        self,
        name: str,
        words: list[str],
        blind_to: Path | None = None,
        link: Link | None = None,
    ) -> None:
        # A socket's path must be short, so these folders lie in /tmp itself.
        self.folders.append(Path(tempfile.mkdtemp(prefix="hp", dir="/tmp")))
        memory = ["--object-store-memory=100000000", f"--temp-dir={self.folders[-1]}"]
        command = [RAY, "start", *words, *memory, "--block", "--disable-usage-stats"]
        if link is not None:
            command = ["ip", "netns", "exec", link.namespace, *command]
        if blind_to is not None:
            if not can_blind():
                pytest.skip("only root may give a process a file system of its own")
            hide = f"mount -t tmpfs none {blind_to} && exec " + " ".join(command)
            command = ["unshare", "--mount", "sh", "-c", hide]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # jobs call `python`
        with (self.folders[-1] / "log").open("wb") as log:
            self.nodes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **QUIET, "PATH": path},
            )  # fmt: skip


Note = Callable[..., None]
"""``note(fault, trials=0, points=0, patches=0, seconds=1.5)``: what was lost, until it went on."""
NOTES = pytest.StashKey[list[str]]()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Adds a line to the table that ends the session: what was hurt, when, and what it cost."""
    notes = request.config.stash.setdefault(NOTES, [])

    def add(fault: str, *, trials: int, points: int, patches: int, seconds: float) -> None:
        notes.append(f"| {fault} | {trials} | {points} | {patches:,} | {seconds:.1f} |")

    return add


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if notes := terminalreporter.config.stash.get(NOTES, []):
        terminalreporter.write_line(
            "| fault | trials lost | points lost or doubled | "
            "patches trained again | s until it went on |"
        )
        terminalreporter.write_line("|---|---|---|---|---|")
        for line in notes:
            terminalreporter.write_line(line)


@pytest.fixture
def marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder where armed workers leave marks; and no Ray afterwards."""
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv(MARKED, str(folder))
    yield folder
    stop_ray()


@pytest.fixture
def hold(marks: Path, monkeypatch: pytest.MonkeyPatch) -> Hold:
    """Holds the trials of whatever Ray is started from now on."""
    monkeypatch.setenv(WORKER_PROCESS_SETUP_HOOK_ENV_VAR, "faults.arm")
    return Hold(marks)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path / "home", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Without any node yet; this process leaves before they end."""
    found = Fleet()
    yield found
    stop_ray()
    found.stop()
