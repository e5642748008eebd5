"""Machines of a cluster that see no common disk, and that go away."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import ray

from hpsearch.data.store import PatchStore
from hpsearch.promotion.winner import trained
from hpsearch.running.ray_tune import Session, run_session, start_ray, stop_ray

from .searches import begin, listens, seen, wait_for

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


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
