"""Machines of a cluster that see no common disk, and that go away."""

import io
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from hpsearch.data.store import PatchStore
from hpsearch.promotion.winner import trained
from hpsearch.running.ray_tune import Session, run_session, start_ray, stop_ray
from hpsearch.search.workspace import SearchFolder
from hpsearch.training.sealed import read_sealed
from hpsearch.training.trial import CHECKPOINT

from .conftest import Fleet, Note
from .cut import HEAD, can_cut, link
from .searches import begin, joined, listens, seen, wait_for
from .wholeness import (
    assert_study_agrees,
    first_report_after,
    lost_points,
    lost_trials,
    patches_since_report,
)

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def test_a_node_without_the_drivers_disk_trains_and_one_that_dies_loses_no_trial(
    fleet, tiny: PatchStore, tmp_path: Path, note: Note
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
        killed = time.time()
        fleet.kill("first")
        again = patches_since_report(folder, killed)
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
    assert_study_agrees(folder)
    points = lost_points(folder)
    note(
        "the only node is killed, another one comes; neither sees the driver's disk",
        trials=lost_trials(folder), points=points, patches=again,
        seconds=first_report_after(folder, killed),
    )  # fmt: skip
    assert points == 0


def saved(folder: SearchFolder, trial: str) -> int:
    """Patches seen at the checkpoint of a trial."""
    content = read_sealed(folder.trials / trial / CHECKPOINT)
    assert content is not None
    return torch.load(io.BytesIO(content), weights_only=True)["progress"]["seen"]


@pytest.mark.timeout(600)
@pytest.mark.skipif(not can_cut(), reason="only root may cut a link")
def test_a_node_that_is_cut_off_for_a_minute_and_comes_back_doubles_nothing(
    tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    """It sees the disk all the time, and trains on while others have taken over its trials."""
    folder = begin(tmp_path / "home", tiny, patches=12_000, reports=8)
    ended: list[Session] = []
    search = threading.Thread(target=lambda: ended.append(run_session(folder)))
    with link() as cable:
        fleet = Fleet(host=HEAD)
        try:
            fleet.start_head()
            wait_for(lambda: joined(fleet.address, 1))
            fleet.start_worker("far", cpus=2, link=cable)
            wait_for(lambda: joined(fleet.address, 2))
            start_ray(address=fleet.address)
            search.start()
            wait_for(lambda: [len(run.reports) >= 3 for run in folder.runs()] == [True, True])
            cut = time.time()
            cable.cut()
            again = patches_since_report(folder, cut)
            fleet.start_worker("near", cpus=2)
            wait_for(lambda: time.time() > cut + 60)
            cable.mend()
            search.join(300)
            assert [session.exhausted for session in ended] == [True]
            time.sleep(10)  # for whatever the other may still have to say
            assert [saved(folder, run.id) for run in folder.runs()] == [12_000, 12_000]
        finally:
            stop_ray()
            fleet.stop()
    for run in folder.runs():
        assert seen(run) == [1_500 * i for i in range(1, 9)], "each report once, none lost"
        assert run.retries == 1
    assert_study_agrees(folder)
    points = lost_points(folder)
    note(
        "a node is cut off for 60 s and comes back", trials=lost_trials(folder),
        points=points, patches=again, seconds=first_report_after(folder, cut),
    )  # fmt: skip
    assert lost_trials(folder) == points == 0
