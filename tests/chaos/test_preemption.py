"""A spot machine that says when it goes, and loses nothing by it."""

import io
import subprocess
import threading
import time
from pathlib import Path

import pytest
import ray
import torch

from hpsearch.data.store import PatchStore
from hpsearch.running.ray_tune import Session, run_session, start_ray, stop_ray
from hpsearch.search.workspace import SearchFolder
from hpsearch.training.sealed import read_sealed
from hpsearch.training.trial import CHECKPOINT

from .conftest import RAY, Fleet, Note
from .searches import begin, listens, wait_for
from .wholeness import (
    assert_study_agrees,
    first_report_after,
    lost_points,
    lost_trials,
    patches_since_report,
    trials,
)

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

EVERY = 4_800
"""Patches between two reports: several seconds."""


def give_notice(fleet: Fleet, node: str, *, seconds: int) -> None:
    """As the autoscaler, or whatever watches a cloud's notices, tells the head."""
    words = ["--address", fleet.address, "--node-id", node, "--reason-message", "spot"]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--deadline-remaining-seconds", str(seconds)]
    subprocess.run([RAY, "drain-node", *words], check=True, capture_output=True, timeout=60)


def saved(folder: SearchFolder, trial: str) -> int:
    """Patches seen at the checkpoint of a trial."""
    content = read_sealed(folder.trials / trial / CHECKPOINT)
    assert content is not None
    return torch.load(io.BytesIO(content), weights_only=True)["progress"]["seen"]


def test_a_machine_that_is_taken_away_after_notice_costs_no_patch(
    fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    folder = begin(tmp_path / "home", tiny, patches=6 * EVERY, reports=6)
    fleet.start_head()
    fleet.start_worker("first", cpus=2)
    wait_for(lambda: listens(fleet.port))
    start_ray(address=fleet.address)
    wait_for(lambda: ray.cluster_resources().get("CPU") == 2)
    (first,) = (n["NodeID"] for n in ray.nodes() if n["Resources"].get("CPU"))
    ended: list[Session] = []
    search = threading.Thread(target=lambda: ended.append(run_session(folder)))
    try:
        search.start()
        wait_for(lambda: len(trials(folder)) == 2)
        fleet.start_worker("second", cpus=2)
        wait_for(lambda: ray.cluster_resources().get("CPU") == 4)
        wait_for(lambda: [len(run.reports) >= 1 for run in trials(folder)] == [True, True])
        told = time.time()
        give_notice(fleet, first, seconds=30)
        wait_for(lambda: all(saved(folder, run.id) % EVERY for run in trials(folder)))
        left = time.time()
        between = [saved(folder, run.id) - run.seen for run in trials(folder)]
        wait_for(lambda: all(run.retries == 1 for run in trials(folder)))
        fleet.kill("first")
        search.join(200)
        assert [session.exhausted for session in ended] == [True]
    finally:
        stop_ray()
    assert all(0 < patches < EVERY for patches in between), "saved on notice, not at a report"
    assert left - told < 30, "and in time"
    assert_study_agrees(folder)
    points = lost_points(folder)
    note(
        "a machine is taken away after 30 s of notice", trials=lost_trials(folder),
        points=points, patches=0, seconds=first_report_after(folder, told),
    )  # fmt: skip
    assert lost_trials(folder) == points == 0


def test_a_machine_that_goes_without_a_word_costs_less_than_one_report_interval(
    fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    folder = begin(tmp_path / "home", tiny, patches=4 * EVERY, reports=4)
    fleet.start_head()
    fleet.start_worker("first", cpus=2)
    fleet.start_worker("second", cpus=2)
    wait_for(lambda: listens(fleet.port))
    start_ray(address=fleet.address)
    wait_for(lambda: ray.cluster_resources().get("CPU") == 4)
    ended: list[Session] = []
    search = threading.Thread(target=lambda: ended.append(run_session(folder)))
    try:
        search.start()
        wait_for(lambda: [len(run.reports) >= 2 for run in trials(folder)] == [True, True])
        time.sleep(1)
        gone = time.time()
        fleet.kill("first")
        fleet.kill("second")
        again = patches_since_report(folder, gone)
        fleet.start_worker("third", cpus=2)
        search.join(200)
        assert [session.exhausted for session in ended] == [True]
    finally:
        stop_ray()
    assert 0 < again < 2 * EVERY, "of two trials"
    assert_study_agrees(folder)
    points = lost_points(folder)
    note(
        "both machines go without a word, another comes", trials=lost_trials(folder),
        points=points, patches=again, seconds=first_report_after(folder, gone),
    )  # fmt: skip
    assert lost_trials(folder) == points == 0
