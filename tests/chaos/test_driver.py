"""A driver that is told to end, one that is killed, and one whose head goes away."""

import os
import signal
import time

import pytest
from mlflow import MlflowClient

from hpsearch.data.patch_store import PatchStore
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.mlflow_tags import RUN_KIND, STATUS_TAG
from hpsearch.training.trial import CHECKPOINT_FILE

from ..servers import free_port
from .commands import Command
from .conftest import Fleet, Note
from .faults import Hold
from .invariants import (
    assert_mlflow_agrees,
    assert_whole,
    first_report_after,
    patches_since_report,
    saved,
)
from .searches import MARKS, space_of, trials, wait_for

pytestmark = MARKS


def states(command: Command) -> list[tuple[str, str]]:
    """How MLflow says that the search and its trials stand, the search first."""
    client = MlflowClient(command.uri)
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    kept = [run for run in runs if run.data.tags[RUN_KIND] in ("search", "trial")]
    kept.sort(key=lambda run: run.data.tags[RUN_KIND])
    return [(run.info.status, run.data.tags[STATUS_TAG]) for run in kept]


def checkpoints(command: Command) -> list[bytes]:
    return [
        (command.context.paths.trials_dir / r.id / CHECKPOINT_FILE).read_bytes()
        for r in trials(command.context)
    ]


def saved_further(context: SearchContext) -> bool:
    """Whether every trial that was interrupted has saved after its last report."""
    cut = [run for run in trials(context) if run.status == "interrupted"]
    return bool(cut) and all(saved(context, run.id) > run.seen for run in cut)


def test_a_driver_that_is_asked_to_end_and_one_that_is_killed(
    hold: Hold, fleet: Fleet, command: Command, tiny: PatchStore, note: Note
) -> None:
    """SIGTERM is what Kubernetes sends first, and ``ray job stop``; SIGKILL is what follows."""
    space = command.write_space(space_of(patches=9_600, trials=3, reports=8))
    hold.at(2_400)
    fleet.start(first=1, second=1)
    driver = command.search(space, tiny.path, fleet.address)
    command.wait_for_reports(2, driver)
    driver.send_signal(signal.SIGTERM)
    command.finish(driver, 130)
    assert saved_further(command.context), "at the step that they were at"
    assert "hpsearch resume far" in command.output()
    assert set(states(command)) == {("KILLED", "interrupted")}
    hold.at(4_800)
    began = time.time()
    driver = command.begin("resume", "far")
    wait_for(lambda: all(run.retries == 1 for run in trials(command.context)))
    went_on = first_report_after(command.context, began)
    command.wait_for_reports(4, driver)
    note("SIGTERM to the driver", trials=0, points=0, patches=0, seconds=went_on)
    killed = time.time()
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    again = patches_since_report(command.context, killed)
    before = checkpoints(command)
    time.sleep(8)
    assert checkpoints(command) == before, "nobody writes for a driver that is dead"
    hold.release()
    began = time.time()
    command.finish(command.begin("resume", "far"))
    assert assert_mlflow_agrees(command.context, command.uri) > 100
    assert len(trials(command.context)) == 3
    assert states(command)[0] == ("FINISHED", "completed")
    assert_whole(
        "SIGKILL to the driver", note, command.context,
        patches=again, seconds=first_report_after(command.context, began),
    )  # fmt: skip


def test_a_head_that_is_killed_ends_the_driver_and_a_new_one_goes_on(
    hold: Hold, fleet: Fleet, command: Command, tiny: PatchStore, note: Note,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The new head lies elsewhere and knows nothing of the old; workers join it as they did."""
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "10")  # a minute, left alone
    space = command.write_space(space_of(patches=9_600, trials=2, reports=8))
    hold.at(3_600)
    fleet.start(first=2)
    driver = command.search(space, tiny.path, fleet.address)
    command.wait_for_reports(3, driver)
    killed = time.time()
    fleet.kill("head")
    again = patches_since_report(command.context, killed)
    command.finish(driver, 130)
    ended = time.time() - killed
    assert "hpsearch resume far" in command.output()
    assert set(states(command)) == {("KILLED", "interrupted")}
    fleet.kill("first")
    hold.release()
    fleet.port = free_port()  # another machine than the first
    fleet.start(first=2)
    began = time.time()
    command.finish(command.begin("resume", "far", "--address", fleet.address))
    assert_mlflow_agrees(command.context, command.uri)
    assert_whole(
        f"head killed (driver ends after {ended:.0f} s), resumed on another one elsewhere", note,
        command.context, patches=again, seconds=first_report_after(command.context, began),
    )  # fmt: skip
