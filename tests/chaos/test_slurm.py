"""A search as a job of a real Slurm: requeued, at its time limit, and with a worker cancelled."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

from hpsearch.search.workspace import Workspace

from .. import processes
from .conftest import Note
from .faults import MARKED, Hold
from .invariants import assert_whole, first_report_after, patches_since_report
from .searches import MARKS, reported, space_of, wait_for
from .slurm import Slurm, is_installed

pytestmark = [
    *MARKS,
    pytest.mark.skipif(not is_installed(), reason="needs root, slurm-wlm and munge"),
]
ROOT = Path(__file__).parents[2]
PATCHES = 4_800


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    found = Slurm.start()
    yield found
    found.stop()


def test_nothing_is_lost_by_a_cancelled_worker_a_requeue_and_the_time_limit(
    slurm: Slurm, tmp_path: Path, note: Note
) -> None:
    home, space, marks = tmp_path / "home", tmp_path / "space.py", tmp_path / "marks"
    space.write_text(space_of(patches=PATCHES))
    marks.mkdir()
    hold = Hold(marks)
    hold.at(PATCHES * 3 // 8)
    variables = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
        "OMP_NUM_THREADS": "1",
        MARKED: str(marks),
        WORKER_PROCESS_SETUP_HOOK_ENV_VAR: "faults.arm",
    }
    inherited: dict[str, str] = {"PYTHONPATH": str(ROOT), **slurm.variables}
    environment = [word for pair in variables.items() for word in ("--env", "=".join(pair))]
    submitted = processes.run(
        "submit", space, "--slurm", "--name", "far", "--home", home, "--nodes", 2,
        "--cpus-per-node", 1, "--mem", "2500M", "--time", 60, *environment,
        "--data", "tiny", "--device", "cpu", timeout=240, **inherited,
    )  # fmt: skip
    assert submitted.returncode == 0, submitted.stderr
    job = (home / "slurm" / "far" / "job").read_text().strip()

    def status() -> str:
        done = processes.run("status", "far", "--slurm", "--home", home, timeout=240, **inherited)
        return done.stdout + done.stderr

    def log() -> str:
        return (home / "slurm" / "far" / "log").read_text()[-4000:]

    def held(reports: int) -> None:
        """Until both trials have reported so often, and are held there."""

        def come() -> bool:
            assert slurm.state(job) in ("RUNNING", "PENDING", "CONFIGURING"), log()
            there = (home / "searches" / "far" / "search.json").exists()
            return there and reported(Workspace(home).open("far"), reports)

        wait_for(come, 600)

    held(3)
    context = Workspace(home).open("far")
    assert status().startswith("far: running"), status()
    costs = {}

    def hurt(fault: str, eighths: int, *words: object, restarts: bool = True) -> None:
        moment = time.time()
        patches = patches_since_report(context, moment)
        slurm.run(*words)
        hold.at(PATCHES * eighths // 8)
        if restarts:
            slurm.start_again(job)
        costs[fault] = {"patches": patches, "seconds": first_report_after(context, moment)}
        held(eighths)

    steps = slurm.run("squeue", "--steps", "-h", f"--jobs={job}", "-o%i %j").splitlines()
    (step,) = [line.split()[0] for line in steps if line.split()[1] == "bash"]
    hurt("Slurm: a worker's step is cancelled", 5, "scancel", step, restarts=False)
    hurt("Slurm: the job is requeued (preemption)", 6, "scontrol", "requeue", job)
    minutes = int(slurm.run("squeue", "-h", f"--jobs={job}", "-o%M").split(":")[0])
    limit = f"TimeLimit={minutes + 2}"
    hurt("Slurm: the time limit comes", 7, "scontrol", "update", f"JobId={job}", limit)
    assert "the job is queued again, and will resume" in log()
    hold.release()
    wait_for(lambda: slurm.state(job) == "COMPLETED", 600)
    assert status().startswith("far: completed"), status()
    for fault, cost in costs.items():
        assert_whole(fault, note, context, **cost)
