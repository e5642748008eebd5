"""Machines of a cluster that see no common disk, and that go away."""

import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray

from hpsearch.data.store import PatchStore
from hpsearch.promotion.winner import trained
from hpsearch.running.ray_tune import Session, run_session, start_ray, stop_ray
from hpsearch.search.resources import Resources
from hpsearch.search.workspace import SearchFolder, SearchRecord, Workspace
from hpsearch.tracking.runs import Run

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.search import Search

PATCHES = {patches}

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimiser=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=PATCHES)

SEARCH = Search(suggest=suggest, budget=PATCHES, report_every=PATCHES // 8, validation_points=8,
                trials=2, baseline=TrialConfig(patches=PATCHES), scheduler="none")
"""


def begin(home: Path, store: PatchStore, *, patches: int) -> SearchFolder:
    home.mkdir(exist_ok=True)
    (home / "space.py").write_text(SPACE.format(patches=patches))
    record = SearchRecord(
        space="space.py", store=str(store.path), fingerprint=store.fingerprint, split="auto",
        tracking_uri="", trials=2, resources=Resources(device="cpu"),
    )  # fmt: skip
    return Workspace(home).create("far", home / "space.py", record)


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def listens(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


def seen(run: Run) -> list[int]:
    return [report["seen"] for report in run.reports]


def test_a_node_without_the_drivers_disk_trains_and_one_that_dies_loses_no_trial(
    fleet, tiny: PatchStore, tmp_path: Path
) -> None:
    """The first node is killed in the middle of both trials; another takes over."""
    store = PatchStore.open(shutil.copy(tiny.path, tmp_path / "own.arrow"))
    folder = begin(tmp_path / "home", store, patches=9_600)
    fleet.start_head()
    fleet.start_worker("first", cpus=2, blind_to=tmp_path)
    wait_for(lambda: listens(fleet.port))
    start_ray(address=fleet.address)
    wait_for(lambda: ray.cluster_resources().get("CPU") == 2)
    ended: list[Session] = []
    search = threading.Thread(target=lambda: ended.append(run_session(folder)))
    try:
        search.start()
        wait_for(lambda: [len(run.reports) >= 3 for run in folder.runs()] == [True, True])
        fleet.kill("first")
        fleet.start_worker("second", cpus=2, blind_to=tmp_path)
        search.join(200)
        assert [session.exhausted for session in ended] == [True]
    finally:
        stop_ray()
    assert [run.status for run in folder.runs()] == ["completed", "completed"]
    for run in folder.runs():
        assert seen(run) == [1_200 * i for i in range(1, 9)], "each report once, none lost"
        weights = trained(run, folder).task.network.state_dict()
        assert all(np.isfinite(tensor.numpy()).all() for tensor in weights.values())
