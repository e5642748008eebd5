"""A tracking server that goes away in the middle of a search on a cluster."""

import time
from pathlib import Path

import pytest

from hpsearch.data.store import PatchStore

from ..tracking.outages import Server
from .commands import Command
from .conftest import Fleet, Note
from .searches import joined, wait_for
from .wholeness import (
    assert_mlflow_agrees,
    assert_study_agrees,
    lost_points,
    lost_trials,
    trials,
)

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

AWAY = 10.0
"""Seconds without a server."""


def test_a_search_does_not_wait_for_a_tracking_server_that_is_killed_and_comes_back(
    fleet: Fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    server = Server(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    server.start()
    command = Command(tmp_path / "home", server.uri)
    space = command.write_space(patches=19_200, trials=2, reports=16)
    fleet.start_head()
    fleet.start_worker("first")
    fleet.start_worker("second")
    wait_for(lambda: joined(fleet.address, 3))
    driver = command.search(space, tiny.path, fleet.address)
    try:
        command.wait_for_reports(2, driver)
        killed = time.time()
        server.kill()
        time.sleep(AWAY)
        times = [r["time"] for run in trials(command.folder) for r in run.reports]
        meanwhile = [time for time in times if time > killed]
        server.start()
        command.finish(driver)
        if "MLflow has not had everything" in command.said():  # it was up only after the end
            command.finish(command.begin("sync", "far"))
        assert_study_agrees(command.folder)
        count = assert_mlflow_agrees(command.folder, server.database)
    finally:
        server.kill()
    assert meanwhile, "trials report while nobody listens"
    assert count == 32 * (count // 32) > 300
    points = lost_points(command.folder)
    note(
        f"MLflow's server killed for {AWAY:.0f} s ({count:,} points told)",
        trials=lost_trials(command.folder), points=points, patches=0,
        seconds=min(meanwhile) - killed,
    )  # fmt: skip
    assert lost_trials(command.folder) == points == 0
