"""A spot machine that says when it goes, and loses nothing by it."""

import subprocess
import time
from pathlib import Path

import pytest
import ray

from hpsearch.data.store import PatchStore

from .conftest import RAY, Fleet, Note
from .searches import MARKS, begin, searching, trials, wait_for, wait_for_reports
from .wholeness import assert_whole, first_report_after, patches_since_report, saved

pytestmark = [*MARKS, pytest.mark.timeout(400)]

EVERY = 4_800
"""Patches between two reports: several seconds."""


def give_notice(fleet: Fleet, node: str, *, seconds: int) -> None:
    """As the autoscaler, or whatever watches a cloud's notices, tells the head."""
    words = ["--address", fleet.address, "--node-id", node, "--reason-message", "spot"]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--deadline-remaining-seconds", str(seconds)]
    subprocess.run([RAY, "drain-node", *words], check=True, capture_output=True, timeout=60)


def test_a_machine_that_is_taken_away_after_notice_costs_no_patch(
    fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    folder = begin(tmp_path / "home", tiny, patches=6 * EVERY, reports=6)
    fleet.start(first=2)
    fleet.join(cpus=2)
    (first,) = (n["NodeID"] for n in ray.nodes() if n["Resources"].get("CPU"))
    with searching(folder):
        wait_for(lambda: len(trials(folder)) == 2)
        fleet.start_worker("second", cpus=2)
        fleet.wait_for(cpus=4)
        wait_for_reports(folder, 1)
        told = time.time()
        give_notice(fleet, first, seconds=30)
        wait_for(lambda: all(saved(folder, run.id) % EVERY for run in trials(folder)))
        left = time.time()
        between = [saved(folder, run.id) - run.seen for run in trials(folder)]
        wait_for(lambda: all(run.retries == 1 for run in trials(folder)))
        fleet.kill("first")
    assert all(0 < patches < EVERY for patches in between), "saved on notice, not at a report"
    assert left - told < 30, "and in time"
    assert_whole(
        "a machine is taken away after 30 s of notice", note, folder,
        patches=0, seconds=first_report_after(folder, told),
    )  # fmt: skip


def test_a_machine_that_goes_without_a_word_costs_less_than_one_report_interval(
    fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    folder = begin(tmp_path / "home", tiny, patches=4 * EVERY, reports=4)
    fleet.start(first=2, second=2)
    fleet.join(cpus=4)
    with searching(folder):
        wait_for_reports(folder, 2)
        time.sleep(1)
        gone = time.time()
        fleet.kill("first")
        fleet.kill("second")
        again = patches_since_report(folder, gone)
        fleet.start_worker("third", cpus=2)
    assert 0 < again < 2 * EVERY, "of two trials"
    assert_whole(
        "both machines go without a word, another comes", note, folder,
        patches=again, seconds=first_report_after(folder, gone),
    )  # fmt: skip
