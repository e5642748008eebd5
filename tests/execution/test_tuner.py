"""Sessions of a search with real Ray: places, limits, folds, and going on. One Ray for all."""

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from optuna.trial import TrialState
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.core.generated.autoscaler_pb2 import (
    DrainNodeReason,  # pyright: ignore[reportAttributeAccessIssue]
)

from hpsearch.config.custom_import import missing_packages
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.execution import draining_patches
from hpsearch.execution.ray_runtime import (
    check_capacity_now,
    check_packages,
    start_ray,
    stop_ray,
)
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.execution.study_restore import end_paused_trials
from hpsearch.execution.tuner import objects_frozen, run_session
from hpsearch.search.resources import Resources
from hpsearch.search.search_context import SearchContext
from hpsearch.search.stopping import Limits
from hpsearch.search.study import open_study
from hpsearch.tracking.run_state import Run

from ..search_factory import plan
from ..servers import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.pruners import ASHA, FreezeThaw, NoPruner
from hpsearch.search.samplers import GP, Fixed
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=480)

SEARCH = Search(suggest=suggest, budget=480, report_every=240, validation_points=8, {more},
                baseline=TrialConfig(patches=480))
"""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two cores, and a GPU and a TPU chip in name only: trials are told to compute on the CPU."""
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        resources={"TPU": 1},
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    stop_ray()


def begin(tmp_path: Path, store: PatchStore, more: str, **fields: object) -> SearchContext:
    start_ray()
    return plan(tmp_path, store, SPACE.format(more=more), **fields)


def at_once(events: list[dict]) -> dict[str, int]:
    """Most trials at once by kind of place."""
    where, running, most = {}, dict[str, str](), dict[str, int]()
    for event in events:
        if event["event"] == "start":
            running[event["trial"]] = where[event["trial"]] = event["allocation"]["kind"]
        elif event["event"] == "trial_finished":
            running.pop(event["trial"])
        for kind in set(running.values()):
            now = sum(other == kind for other in running.values())
            most[kind] = max(most.get(kind, 0), now)
    return most


def statuses(runs: list[Run]) -> list[str]:
    return [run.status for run in runs]


def test_one_search_uses_gpus_and_tpus_and_ends_cleanly_at_a_limit(
    tmp_path: Path, tiny: PatchStore
) -> None:
    context = begin(
        tmp_path, tiny, "trials=6, pruner=NoPruner()", trials=6, limits=Limits(patches=1_000),
        resources=Resources(gpus=1, tpus=1, device="cpu"),
    )  # fmt: skip
    session = run_session(context)
    assert session.limit == "1,000 patches"
    assert not session.exhausted
    assert at_once(context.event_log.events()) == {"gpu": 1, "tpu": 1}
    cut = statuses(context.runs)
    assert set(cut) <= {"completed", "interrupted"}, "nobody was pruned"
    assert 1_000 <= sum(run.seen for run in context.runs) < 6 * 480
    session = run_session(context.with_record(limits=Limits(patches=100_000)))
    assert (session.limit, session.exhausted) == ("", True)
    assert statuses(context.runs) == ["completed"] * 6
    seen = [[report["seen"] for report in run.reports] for run in context.runs]
    assert seen == [[240, 480]] * 6, "what was interrupted has gone on"


def test_a_search_in_folds_stops_a_bad_configuration_after_one(
    tmp_path: Path, tiny: PatchStore
) -> None:
    first = "points=[{'lr': 2e-3}, {'lr': 1e-4}]"
    context = begin(
        tmp_path, tiny,
        f"trials=2, num_folds=2, pruner=ASHA(reduction_factor=2), sampler=Fixed({first})",
        trials=2, max_concurrent_trials=1,
    )  # fmt: skip
    assert run_session(context).exhausted
    good, bad = context.runs
    assert (good.status, good.seen, good.last["folds/done"]) == ("completed", 480, 2.0)
    assert (bad.status, bad.seen, bad.last["folds/done"]) == ("pruned", 240, 1.0)
    assert good.reports[-1]["seconds"] > good.reports[0]["seconds"] > 0
    assert "system/cpu_utilization_percentage" in good.last.keys() & bad.last.keys()


def test_a_paused_trial_resumes_to_the_bit_also_after_an_interruption(
    tmp_path: Path, tiny: PatchStore
) -> None:
    context = begin(
        tmp_path, tiny, "trials=3, sampler=GP(startup_trials=2), pruner=FreezeThaw()",
        trials=3, max_concurrent_trials=1, limits=Limits(patches=400),
    )  # fmt: skip
    assert run_session(context).limit == "400 patches"
    assert context.runs[0].status == "paused", "the first points are all tried first"
    study = open_study(context.paths.folder, search=context.search)
    assert study.trials[0].state == TrialState.RUNNING
    assert study.trials[0].last_step == context.runs[0].seen
    context = context.with_record(limits=Limits(patches=100_000))
    assert run_session(context).exhausted
    paused = statuses(context.runs).count("paused")
    assert end_paused_trials(context) == paused
    events = [event for event in context.event_log.events() if "trial" in event]
    resumed = [run for run in context.runs if run.pauses]
    assert resumed, [(event["event"], event["trial"]) for event in events]
    for run in context.runs:
        assert run.status in ("completed", "pruned"), "none is left"
        kinds = [event["event"] for event in events if event["trial"] == run.id]
        assert kinds.count("trial_paused") == run.pauses + (run.status == "pruned")
        assert (run.retrained_patches, run.restarted_attempts) == (0, ())
    states = [trial.state.name.replace("COMPLETE", "COMPLETED").lower() for trial in
              open_study(context.paths.folder, search=context.search).trials]  # fmt: skip
    assert states == statuses(context.runs)
    run, hooks = resumed[0], CheckpointHooks(tmp_path / "uncut")
    uncut = list(run_with_checkpoints(run.config, context.environment, hooks))[: len(run.reports)]
    for report, known in zip(uncut, run.reports, strict=True):
        names = [name for name in known["metrics"] if name.startswith(("train/l", "val/"))]
        assert "val/mAP" in names
        assert report.seen == known["seen"]
        assert [report.metrics[n] for n in names] == [known["metrics"][n] for n in names]


def test_more_than_the_cluster_can_hold_is_refused() -> None:
    with pytest.raises(UserError, match="9 trials at once do not fit: each asks for 1 CPU"):
        check_capacity_now(Resources(device="cpu"), 9)
    with pytest.raises(UserError, match="requests 1 CPU and 2 GPUs, but no node"):
        check_capacity_now(Resources(gpus=2), None)


def test_every_node_is_asked_for_the_packages_of_own_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_ray()
    found = tmp_path / "only_here-1.0.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: only-here\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # of this process, and of no worker
    assert missing_packages(("only-here>=1",)) == []
    check_packages(())
    check_packages(("torch", "numpy>=1"))
    with pytest.raises(UserError, match=r"node [\d.]+ lacks only-here>=1 \(not inst") as caught:
        check_packages(("numpy", "only-here>=1"))
    assert caught.value.code == "missing-package"


def test_a_head_lists_the_nodes_that_drain() -> None:
    """Contract test of Ray's private names; last but one, since the node is then taken away."""
    assert draining_patches.draining_nodes() == set()
    busy = ray.remote(num_cpus=1)(SimpleNamespace).remote()  # an idle node would leave at once
    started = busy.__ray_ready__.remote()  # pyright: ignore[reportAttributeAccessIssue]
    ray.get(started)
    check_notices(started)
    node = ray.get_runtime_context().get_node_id()
    client = draining_patches.gcs_client(ray.get_runtime_context().gcs_address)
    assert client.check_alive([ray.NodeID.from_hex(node)]) == [True]
    reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    taken, why = client.drain_node(node, reason, "it is taken away", 2**40)
    assert taken, why
    assert draining_patches.draining_nodes() == {node}
    assert isinstance(client, GcsClient)


def check_notices(started: Any) -> None:
    """Futures with a value and with an error give notice, also later; it can be cancelled."""

    def fail() -> None:
        raise ValueError("as it should")

    def wait() -> None:
        time.sleep(0.5)

    ready = SimpleQueue[str]()
    started._on_ready(lambda error: ready.put("at once"))
    assert ready.get(timeout=60) == "at once"
    ray.remote(num_cpus=0)(fail).remote()._on_ready(lambda error: ready.put("failed"))
    assert ready.get(timeout=60) == "failed"
    later = ray.remote(num_cpus=0)(wait)
    kept, cancelled = later.remote(), later.remote()
    kept._on_ready(lambda error: ready.put("later"))
    cancelled._on_ready(lambda error: None)()
    assert ready.get(timeout=60) == "later"
    ray.get([kept, cancelled])


def test_a_cluster_that_is_not_there_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_ray()  # the last test of this file
    port = free_port()
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray itself tries for minutes"))
    for address in (f"127.0.0.1:{port}", f"ray://localhost:{port}", "no.such.host.invalid:6379"):
        with pytest.raises(UserError, match=r"no Ray cluster answers at .*; start one"):
            start_ray(address=address)


def test_objects_are_frozen_meanwhile_and_those_of_the_caller_stay_so() -> None:
    before = [object()]
    assert is_collected(before)
    with objects_frozen():
        assert not is_collected(before)
        assert is_collected([object()])
    assert is_collected(before)
    gc.freeze()
    try:
        with objects_frozen():
            pass
        assert not is_collected(before)
    finally:
        gc.unfreeze()


def is_collected(found: list[object]) -> bool:
    """Whether the garbage collector looks at an object."""
    return any(other is found for other in gc.get_objects())
