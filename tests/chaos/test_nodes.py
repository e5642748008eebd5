"""Machines of a cluster that see no common disk, and that go away."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.promotion.final_evaluation import load_trained

from .conftest import Fleet, Note
from .faults import Hold
from .invariants import assert_whole, first_report_after, patches_since_report, saved
from .network_partition import HEAD, Link, can_cut, link
from .searches import MARKS, begin, joined, searching, seen, wait_for, wait_for_reports

pytestmark = MARKS


def test_a_node_without_the_drivers_disk_trains_and_one_that_dies_loses_no_trial(
    hold: Hold, fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    """The first node is killed in the middle of both trials; another takes over."""
    store = PatchStore.open(shutil.copy(tiny.path, tmp_path / "own.arrow"))
    context = begin(tmp_path / "home", store, patches=9_600)
    hold.at(3_600)
    fleet.start_head()
    fleet.start_worker("first", cpus=2, blind_to=tmp_path)
    fleet.join(cpus=2)
    with searching(context):
        wait_for_reports(context, 3)
        killed = time.time()
        fleet.kill("first")
        hold.release()
        again = patches_since_report(context, killed)
        fleet.start_worker("second", cpus=2, blind_to=tmp_path)
    for run in context.runs:
        assert seen(run) == [1_200 * i for i in range(1, 9)], "each report once, none lost"
        weights = load_trained(run, context).task.network.state_dict()
        assert all(np.isfinite(tensor.numpy()).all() for tensor in weights.values())
    assert_whole(
        "the only node is killed, another one comes; neither sees the driver's disk", note, context,
        patches=again, seconds=first_report_after(context, killed),
    )  # fmt: skip


@pytest.fixture
def cable() -> Iterator[Link]:
    with link() as made:
        yield made


@pytest.mark.skipif(not can_cut(), reason="only root may cut a link")
def test_a_node_that_is_cut_off_for_a_minute_and_comes_back_doubles_nothing(
    cable: Link, hold: Hold, fleet: Fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    """It sees the disk all the time, and trains on while others have taken over its trials."""
    context = begin(tmp_path / "home", tiny, patches=12_000, reports=8)
    hold.at(4_500)
    fleet.host = HEAD
    fleet.start_head()
    wait_for(lambda: joined(fleet.address, 1))
    fleet.start_worker("far", cpus=2, link=cable)
    fleet.join(cpus=2)
    with searching(context):
        wait_for_reports(context, 3)
        cut = time.time()
        cable.cut()
        again = patches_since_report(context, cut)
        hold.release()
        fleet.start_worker("near", cpus=2)
        wait_for(lambda: time.time() > cut + 60)
        cable.restore()
    time.sleep(10)  # for whatever the other may still have to say
    assert [saved(context, run.id) for run in context.runs] == [12_000, 12_000]
    for run in context.runs:
        assert seen(run) == [1_500 * i for i in range(1, 9)], "each report once, none lost"
        assert run.retries == 1
    assert_whole(
        "a node is cut off for 60 s and comes back", note, context,
        patches=again, seconds=first_report_after(context, cut),
    )  # fmt: skip
