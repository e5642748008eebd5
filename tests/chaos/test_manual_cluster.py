"""A cluster made by hand, with its token: workers that leave it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from hpsearch.execution.preemption_agent import local_raylets

from ..fake_metadata_server import raylet
from ..servers import free_port
from .searches import MARKS, wait_for

pytestmark = MARKS

LOCAL = Path(__file__).parents[2] / "cluster" / "local"
READY = "This command will now block forever"
Start = Callable[..., tuple[subprocess.Popen[bytes], str]]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home without a token yet, and ports of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ports = {"RAY_PORT": str(free_port()), "RAY_DASHBOARD_PORT": str(free_port())}
    return {**kept, **ports, "RAY_AUTH_MODE": "token", "HOME": str(tmp_path), "PATH": path}


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Starts a script as a terminal does; gives it and its folder, once Ray runs."""
    running: list[subprocess.Popen[bytes]] = []
    folders: list[str] = []

    def begin(script: str, *words: str) -> tuple[subprocess.Popen[bytes], str]:
        # A socket's path must be short, so these folders lie in /tmp itself.
        folders.append(folder := tempfile.mkdtemp(prefix="hp", dir="/tmp"))
        log = Path(folder) / "log"
        options = [f"--temp-dir={folder}", "--object-store-memory=100000000", *words]
        with log.open("wb") as file:
            running.append(
                subprocess.Popen(
                    [LOCAL / script, "127.0.0.1", *options], start_new_session=True,
                    stdout=file, stderr=file, env=environment,
                    preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
                )
            )  # fmt: skip
        wait_for(lambda: READY in log.read_text())
        return running[-1], folder

    yield begin
    for script in reversed(running):
        subprocess.run(["pkill", "-KILL", "--session", str(script.pid)], check=False)
        script.wait()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def leave(folder: str, seconds: int, environment: dict[str, str]) -> tuple[int, str]:
    """What the program answers and says, for the worker of a folder."""
    words = [
        sys.executable,
        "-m",
        "hpsearch.execution.preemption_agent",
        "now",
        "--temp-dir",
        folder,
    ]
    done = subprocess.run(
        [*words, "--seconds", str(seconds)], env=environment, capture_output=True, text=True,
        check=False, timeout=90,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_worker_leaves_by_the_program_and_by_ctrl_c(
    start: Start, environment: dict[str, str], tmp_path: Path
) -> None:
    start("head.sh", "--num-cpus=0", "--include-dashboard=false")
    with raylet(tmp_path, head=f"127.0.0.1:{environment['RAY_PORT']}"):
        code, output = leave(str(tmp_path), 5, environment)
        assert (code, "it is not there yet" in output) == (1, True), output

    _, folder = start("worker.sh", "--num-cpus=1")
    code, output = leave(folder, 5, {**environment, "RAY_AUTH_TOKEN": "another"})
    assert (code, "InvalidAuthToken" in output) == (1, True), output
    assert local_raylets(folder)
    assert leave(folder, 30, environment)[0] == 0
    assert not local_raylets(folder), "no trial was there, so it has ended at once"

    script, folder = start("worker.sh", "--num-cpus=1")
    os.killpg(script.pid, signal.SIGINT)
    script.wait(60)
    assert not local_raylets(folder)
    assert "Local node finished draining" in (Path(folder) / "log").read_text()
