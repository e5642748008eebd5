"""A tracking server that goes away in the middle of a search on a cluster."""

import time
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore

from ..tracking.outages import Server
from .commands import Command
from .conftest import Fleet, Note
from .invariants import assert_mlflow_agrees, assert_whole
from .searches import MARKS, space_of, trials

pytestmark = [*MARKS, pytest.mark.timeout(600)]

AWAY = 10.0
"""Seconds without a server."""


def test_a_search_does_not_wait_for_a_tracking_server_that_is_killed_and_comes_back(
    fleet: Fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    server = Server(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")
    server.start()
    command = Command(tmp_path / "home", server.uri)
    space = command.write_space(space_of(patches=19_200, trials=2, reports=16))
    fleet.start(first=1, second=1)
    driver = command.search(space, tiny.path, fleet.address)
    try:
        command.wait_for_reports(2, driver)
        killed = time.time()
        server.kill()
        time.sleep(AWAY)
        times = [r["time"] for run in trials(command.context) for r in run.reports]
        meanwhile = [time for time in times if time > killed]
        server.start()
        command.finish(driver)
        if "MLflow has not received everything" in command.output():  # it was up only after the end
            command.finish(command.begin("sync", "far"))
        count = assert_mlflow_agrees(command.context, server.database)
    finally:
        server.kill()
    assert meanwhile, "trials report while nobody listens"
    assert count == 32 * (count // 32) > 300
    assert_whole(
        f"MLflow's server killed for {AWAY:.0f} s ({count:,} points told)", note, command.context,
        patches=0, seconds=min(meanwhile) - killed,
    )  # fmt: skip
