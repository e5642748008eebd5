"""A search whose reader leaves (``| head``) and whose terminal then closes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpsearch.search.workspace import Workspace

from ..processes import environment
from .conftest import SPACE, Home

pytestmark = pytest.mark.slow


def heed_signals() -> None:
    """Heed both signals also where these tests run in the background, or under ``nohup``."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_it_trains_without_a_reader_and_a_closed_terminal_saves_and_ends_it(
    home: Home, tmp_path: Path
) -> None:
    space = tmp_path / "long.py"
    space.write_text(SPACE.read_text().replace("BUDGET = 1_920", "BUDGET = 400_000"))
    nowhere = os.pipe()
    os.close(nowhere[0])
    words = ("search", space, "--name", "unread", "--data", home.store, "--home", home.path)
    search = subprocess.Popen(
        [sys.executable, "-m", "hpsearch", *map(str, words)], env=environment(),
        stdout=nowhere[1], stderr=nowhere[1], start_new_session=True,
        preexec_fn=heed_signals,
    )  # fmt: skip
    try:
        while not any(event["event"] == "report" for event in home.event_log("unread").events()):
            assert search.poll() is None, "a closed pipe ended the search"
            time.sleep(0.2)
        for _ in range(2):
            os.killpg(search.pid, signal.SIGHUP)  # as terminal and shell do, to all its processes
        assert search.wait(timeout=120) == 130
    finally:
        if search.poll() is None:
            os.killpg(search.pid, signal.SIGKILL)
            search.wait()
    context = Workspace(home.path).open("unread")
    log = (context.paths.folder / "output.log").read_text()
    assert log.startswith("search unread: 6 trials of at most 400,000 patches")
    assert "Resume with:  hpsearch resume unread" in log
    reported = [run for run in context.runs if run.reports]
    assert reported
    assert all((context.paths.trials_dir / run.id / "trial.pt").is_file() for run in reported)
    assert "running" not in {run.status for run in context.runs}
    client = context.tracking().client()
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`hpsearch.search` = 'unread'")
    assert runs
    assert "RUNNING" not in {run.info.status for run in runs}
