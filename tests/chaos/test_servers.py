"""A tracking server that goes away in the middle of a search on a cluster."""

import time
from pathlib import Path

from hpsearch.data.patch_store import PatchStore
from hpsearch.search.search_context import SearchContext

from ..tracking.outages import Server
from .commands import Command
from .conftest import Fleet, Note
from .faults import Hold
from .invariants import assert_mlflow_agrees, assert_whole
from .searches import MARKS, space_of, trials, wait_for

pytestmark = MARKS

AWAY = 10.0
"""Seconds without a server, after a trial has reported to nobody."""


def times_after(context: SearchContext, moment: float) -> list[float]:
    """When trials reported since a moment."""
    times = (report["time"] for run in trials(context) for report in run.reports)
    return [time for time in times if time > moment]


def test_a_search_does_not_wait_for_a_tracking_server_that_is_killed_and_comes_back(
    hold: Hold, fleet: Fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    hold.at(2_400)
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
        hold.release()
        wait_for(lambda: times_after(command.context, killed))
        time.sleep(AWAY)
        meanwhile = times_after(command.context, killed)
        server.start()
        command.finish(driver)
        if "MLflow has not received everything" in command.output():  # it was up only after the end
            command.finish(command.begin("sync", "far"))
        count = assert_mlflow_agrees(command.context, server.database)
    finally:
        server.kill()
    assert count == 32 * (count // 32) > 300
    assert_whole(
        f"MLflow's server killed for {AWAY:.0f} s ({count:,} points told)", note, command.context,
        patches=0, seconds=min(meanwhile) - killed,
    )  # fmt: skip
