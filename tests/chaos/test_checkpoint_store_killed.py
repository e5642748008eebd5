"""The actor beside the driver is killed: the only one that writes trials' checkpoints."""

import os
import signal
import time
from pathlib import Path

from ray._private import state

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.ray_runtime import start_ray, stop_ray
from hpsearch.search.search_context import SearchContext

from .conftest import Note
from .faults import Hold
from .invariants import assert_whole
from .searches import MARKS, begin, searching, trials, wait_for, wait_for_reports

pytestmark = MARKS


def kill_checkpoint_store() -> float:
    """Seconds since 1970 when it was killed."""
    actors = state.actors().values()
    (checkpoint_store,) = (
        a for a in actors if (a["ActorClassName"], a["State"]) == ("CheckpointStore", "ALIVE")
    )
    os.kill(checkpoint_store["Pid"], signal.SIGKILL)
    return time.time()


def report_times(context: SearchContext) -> list[float]:
    return sorted(report["time"] for run in trials(context) for report in run.reports)


def test_trials_do_not_notice_that_the_checkpoint_store_was_killed(
    hold: Hold, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    context = begin(tmp_path / "home", tiny, patches=14_400, reports=6)
    killed, went_on = [], []
    hold.at(2_400)
    start_ray(cpus=2)
    try:
        with searching(context):
            for count in (1, 3):
                wait_for_reports(context, count)
                killed.append(kill_checkpoint_store())
                hold.at(2_400 * 3) if count == 1 else hold.release()
                wait_for(lambda: report_times(context)[-1] > killed[-1])
                went_on.append(report_times(context)[-1])
    finally:
        stop_ray()
    assert {run.retries for run in trials(context)} == {0}
    seconds = max(after - before for before, after in zip(killed, went_on, strict=True))
    assert_whole("checkpoint store killed, twice", note, context, patches=0, seconds=seconds)
