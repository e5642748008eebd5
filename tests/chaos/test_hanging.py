"""A trial that hangs, in a search whose driver is killed and that goes on."""

import json
import os
import signal
import time
from pathlib import Path

from hpsearch.data.patch_store import PatchStore

from .commands import Command
from .conftest import Fleet, Note
from .faults import PATCHES, SEED, assert_freed, faulty_space, hung
from .invariants import assert_mlflow_agrees, first_report_after, lost_points, patches_since_report
from .searches import MARKS, seen, trials, wait_for

pytestmark = MARKS
HANG_AFTER = 40
ARMED = {
    "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(
        {"runtime_env": {"worker_process_setup_hook": "faults.arm"}}
    )
}
"""As Ray's job server hands a driver the environment of its workers."""


def test_a_trial_that_hangs_again_after_the_driver_was_killed_has_failed(
    marks: Path, fleet: Fleet, command: Command, tiny: PatchStore, note: Note
) -> None:
    space = command.write_space(faulty_space(["hangs in C", "none"]))
    fleet.start(first=2)
    options = ("--report-timeout", HANG_AFTER)
    driver = command.search(space, tiny.path, fleet.address, *options, **ARMED)
    wait_for(lambda: hung(marks))
    killed = time.time()
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    again = 6 * 29 + patches_since_report(command.context, killed)  # steps 171 to 199 of one
    assert_freed(hung(marks)[0])
    resumed = time.time()
    command.finish(command.begin("resume", "far", **ARMED))
    assert len(hung(marks)) == 2
    assert_freed(hung(marks)[1])
    runs = {run.config.seed: run for run in trials(command.context)}
    failed, healthy = runs[SEED["hangs in C"]], runs[SEED["none"]]
    assert failed.status == "failed"
    assert failed.reason == f"it hung: no report for {HANG_AFTER} s"
    assert seen(failed) == [PATCHES // 6]
    assert healthy.status == "completed"
    assert_mlflow_agrees(command.context, command.uri)
    lost = lost_points(command.context, healthy)
    note(
        "driver killed while a trial hangs; it hangs again after `resume`, and fails",
        trials=0, points=lost, patches=again,
        seconds=first_report_after(command.context, resumed),
    )  # fmt: skip
    assert lost == 0
