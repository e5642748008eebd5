"""Trials that raise, hang, find no memory or are killed: they end, or go on; the search goes on."""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import psutil
import pytest
import ray
from optuna.trial import TrialState

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.ray_runtime import start_ray, stop_ray
from hpsearch.execution.tuner import run_session
from hpsearch.search.search_context import SearchContext
from hpsearch.search.study import open_study
from hpsearch.tracking.event_log import Event
from hpsearch.tracking.run_state import Run

from ..search_factory import plan
from .faults import KILLED_AT, PATCHES, SEED, assert_freed, faulty_space, hung
from .invariants import assert_mlflow_agrees, lost_points, patches_since_report
from .searches import MARKS, seen, wait_for

pytestmark = MARKS
HANG_AFTER = 60.0
MEMORY_LIMIT_BYTES = 4 << 30
"""Bytes that trials may take before Ray finds that the machine has no memory left."""
REPORTS = [1_020 * i for i in range(1, 7)]
ENDS = {
    "none": ("completed", "", REPORTS),
    "raises at step 1": ("failed", "ZeroDivisionError: in step 1 (faults.py:", []),
    "raises at step 1000": ("failed", "ZeroDivisionError: in step 1000 (", REPORTS[:5]),
    "raises while it saves": (
        "failed", "RuntimeError: in the middle of a checkpoint (faults.py:", REPORTS[:1]
    ),
    "hangs in C": ("failed", "it hung: no report for 60 s", REPORTS[:1]),
    "is killed again and again": ("completed", "", REPORTS),
    "kills itself at one step": (
        "failed", "death 6 without getting further: its worker process died", REPORTS[:1]
    ),
    "asks NumPy for too much": ("failed", "out of memory (Unable to", REPORTS[:1]),
    "asks torch for too much": ("failed", "out of memory ([enforce fail at", REPORTS[:1]),
}  # fmt: skip
"""Status, how the reason begins, and the patches at which each reports."""


def start_armed(**system: float) -> None:
    """Ray on two cores, whose workers are armed."""
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"worker_process_setup_hook": "faults.arm"}, _system_config=system,
    )  # fmt: skip
    start_ray()


def test_each_fault_ends_as_it_should_and_the_search_goes_on(
    marks: Path, tiny: PatchStore, tmp_path: Path, note
) -> None:
    context = begin(tmp_path, tiny, list(ENDS)[::-1], patches=PATCHES)
    start_armed()
    session = run_session(context)
    assert session.exhausted
    runs = {name: one(context, name) for name in ENDS}
    for name, (status, reason, reports) in ENDS.items():
        run = runs[name]
        assert (run.status, seen(run)) == (status, reports), (name, run.reason)
        assert run.reason.startswith(reason), (name, run.reason)
        again = sum(6 * (at - 1) % 1_020 for at in KILLED_AT) if run.retries > 5 else 0
        if name != "none":
            note_run(note, name, context, run, again=again)
    assert "--max-concurrent-trials" in runs["asks NumPy for too much"].reason
    assert_freed(hung(marks)[0])
    assert runs["is killed again and again"].retries == len(KILLED_AT)
    assert runs["kills itself at one step"].retries == 5
    assert [runs[n].retries for n in ENDS if "rais" in n or "much" in n or "hang" in n] == [0] * 6
    assert not list(tmp_path.rglob("*.part"))
    context.mlflow_sync().sync()
    assert_mlflow_agrees(context, context.tracking().uri)
    study = open_study(context.paths.folder, search=context.search)
    for trial, run in zip(study.get_trials(), context.runs, strict=True):
        completed = run.status == "completed"
        assert trial.state == (TrialState.COMPLETE if completed else TrialState.FAIL)
        assert list(trial.intermediate_values) == seen(run)
        assert trial.user_attrs["reason"] == run.reason


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="needs Linux")
def test_a_trial_that_eats_all_memory_fails_and_its_neighbor_does_not(
    marks: Path, tiny: PatchStore, tmp_path: Path, note
) -> None:
    """Ray kills whoever came last; who is to blame shows when one is killed alone."""
    context = begin(tmp_path, tiny, ["eats all memory", "none"], patches=1_200)
    total, free = memory("MemTotal"), memory("MemAvailable")
    if free < 10 << 30:
        pytest.skip("needs 10 GB of free memory")
    memory_limit = (total - free + MEMORY_LIMIT_BYTES) / total
    start_armed(memory_usage_threshold=memory_limit, memory_monitor_refresh_ms=100)
    assert run_session(context).exhausted
    eater, healthy = one(context, "eats all memory"), one(context, "none")
    assert eater.status == "failed"
    assert eater.reason.startswith("the machine ran out of memory, so Ray killed its worker; lower")
    assert (healthy.status, seen(healthy)) == ("completed", [204, 402, 600, 804, 1002, 1200])
    crashed = [e["time"] for e in context.event_log.events() if e["event"] == "worker_failed"]
    again = sum(patches_since_report(context, moment) for moment in crashed)
    note_run(note, "beside one that eats all memory", context, healthy, again=again)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of version 1 without a limit yet."""
    folder = Path(f"/sys/fs/cgroup/memory/hpsearch-chaos-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("only root may make a cgroup, here of version 1")
    yield folder
    stop_ray()
    with suppress(OSError):
        wait_for(lambda: not (folder / "cgroup.procs").read_text())
        folder.rmdir()


def test_a_trial_that_the_kernel_kills_for_its_memory_runs_alone_once_and_fails(
    cgroup: Path, marks: Path, tiny: PatchStore, tmp_path: Path, note
) -> None:
    """Ray sees a connection that ends, six times if nobody thins out."""
    context = begin(tmp_path, tiny, ["eats all memory", "none"], patches=1_200)
    start_armed(memory_monitor_refresh_ms=0)
    for process in psutil.Process().children(recursive=True):
        with suppress(OSError):
            (cgroup / "cgroup.procs").write_text(str(process.pid))
    used = int((cgroup / "memory.usage_in_bytes").read_text())
    (cgroup / "memory.limit_in_bytes").write_text(str(used + MEMORY_LIMIT_BYTES))
    assert run_session(context).exhausted
    eater, healthy = one(context, "eats all memory"), one(context, "none")
    assert eater.status == "failed"
    assert eater.retries <= 1, "once, if it was not alone"
    assert eater.reason.startswith("memory ran out, so the system killed its worker; lower")
    assert healthy.status == "completed"
    crashed = [e["time"] for e in context.event_log.events() if e["event"] == "worker_failed"]
    again = sum(patches_since_report(context, moment) for moment in crashed)
    note_run(note, "beside one that the kernel kills for memory", context, healthy, again=again)


def begin(home: Path, store: PatchStore, faults: list[str], *, patches: int) -> SearchContext:
    space = faulty_space(faults, patches=patches)
    return plan(home, store, space, trials=len(faults), report_timeout=HANG_AFTER)


def one(context: SearchContext, fault: str) -> Run:
    return next(run for run in context.runs if run.config.seed == SEED[fault])


def note_run(note, name: str, context: SearchContext, run: Run, *, again: int) -> None:
    """What a fault cost; a trial that should fail is not lost."""
    lost = lost_points(context, run) if run.status == "completed" else 0
    assert lost == 0
    seconds = max(pauses(context.event_log.events(), run.id), default=0.0)
    note(f"a trial {name}", trials=0, points=lost, patches=again, seconds=seconds)


def pauses(events: list[Event], trial: str) -> Iterator[float]:
    """Seconds from each death of a trial until it, or the next in its place, starts."""
    for i, event in enumerate(events):
        if event.get("trial") != trial or event["event"] not in ("worker_failed", "trial_finished"):
            continue
        own = event["event"] == "worker_failed"
        starts = (
            e for e in events[i:] if e["event"] == "start" and (e["trial"] == trial or not own)
        )
        yield from (start["time"] - event["time"] for start in islice(starts, 1))


def memory(name: str) -> int:
    """Bytes, by Linux."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
