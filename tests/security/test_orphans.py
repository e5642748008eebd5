"""Whoever kills us leaves nothing running: what we started ends by itself."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.search.workspace import Workspace

from ..processes import begin, environment
from ..servers import free_port
from .listeners import doors, name, tree

PR_SET_CHILD_SUBREAPER = 36
BUILDING = """
import time
from hpsearch.data.process_pool import imap_ordered

def slow(n):
    time.sleep(0.05)
    return n

if __name__ == "__main__":
    for result in imap_ordered(slow, range(1000), workers=2):
        print(result, flush=True)
        time.sleep(60 if result == 8 else 0)  # as a driver that has enough for now
"""


@pytest.fixture
def adopted() -> Iterator[None]:
    """Processes whose parent dies become children of this one, so that they can be found."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1) == 0
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


def left(before: set[int]) -> dict[int, str]:
    """New descendants by their command line; one without has ended, but for the kernel's part."""
    found = {pid: name(pid) for pid in {*tree(os.getpid())} - before}
    return {pid: line for pid, line in found.items() if line not in ("", "ended")}


def assert_none_left(before: set[int], seconds: float = 60) -> None:
    """Within a time that a busy machine keeps, and whatever is found is killed."""
    deadline = time.monotonic() + seconds
    while left(before) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = left(before)
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    assert found == {}


@pytest.mark.slow
@pytest.mark.usefixtures("adopted")
def test_a_pool_ends_with_a_driver_that_is_killed_at_any_moment(tmp_path: Path) -> None:
    """While its workers start, work, and wait for more."""
    script = tmp_path / "building.py"
    script.write_text(BUILDING)
    most = 0
    for processes, results in ((1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 9)):
        before = {*tree(os.getpid())}
        driver = subprocess.Popen(
            [sys.executable, script], stdout=subprocess.PIPE, env=environment(), text=True,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert driver.stdout
        deadline = time.monotonic() + 60  # workers start: as many as there are processes
        while not results and len(left(before)) < processes and time.monotonic() < deadline:
            time.sleep(0.01)
        for _ in range(results):
            driver.stdout.readline()
        most = max(most, len(left(before)))
        driver.kill()
        driver.wait()
        driver.stdout.close()
        assert_none_left(before)
    assert most >= 3, "a driver and two workers"


@pytest.mark.slow
@pytest.mark.usefixtures("adopted")
def test_mlflow_s_ui_ends_with_us(tmp_path: Path) -> None:
    Workspace(tmp_path / "home").tracking().client().search_experiments()  # makes the database
    before, log, port = {*tree(os.getpid())}, tmp_path / "log", free_port()
    ui = begin("ui", "--port", port, log=log, HPSEARCH_HOME=str(tmp_path / "home"))
    deadline = time.monotonic() + 150
    while "Ctrl-C stops it" not in log.read_text():
        assert ui.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    assert len(left(before)) > 1
    found = doors(ui.pid)
    assert {door.port for door in found} == {port}
    assert all(door.is_loopback for door in found), "MLflow asks for no password"
    ui.kill()
    ui.wait()
    assert_none_left(before)
