"""A spot machine that says when it goes, and loses nothing by it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.preemption_agent import local_raylets

from ..fake_metadata_server import metadata
from .conftest import QUIET, RAY, Fleet, Note
from .faults import Hold
from .invariants import assert_whole, first_report_after, patches_since_report, saved
from .searches import MARKS, begin, searching, trials, wait_for, wait_for_reports

pytestmark = MARKS

EVERY = 4_800
"""Patches between two reports: several seconds."""


Notice = Callable[[Fleet, str], AbstractContextManager[Callable[[], object]]]
"""For a fleet and the folder of its worker: what gives it notice."""


@contextmanager
def notified_manually(fleet: Fleet, folder: str) -> Iterator[Callable[[], object]]:
    """As the autoscaler, or a person, tells the head."""
    (worker,) = local_raylets(folder)
    words = ["--address", fleet.address, "--node-id", worker.node_id, "--reason-message", "spot"]
    words += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "30"]
    command = [RAY, "drain-node", *words]
    yield lambda: subprocess.run(command, check=True, capture_output=True, timeout=60)


@contextmanager
def notified_by_ec2(fleet: Fleet, folder: str) -> Iterator[Callable[[], object]]:
    """As a spot instance hears of it; beside its worker runs what asks."""
    with metadata() as server:
        words = ["aws", "--metadata", server.url, "--temp-dir", folder]
        program = subprocess.Popen(
            [sys.executable, "-m", "hpsearch.execution.preemption_agent", *words],
            stderr=subprocess.DEVNULL, env={**os.environ, **QUIET},
        )  # fmt: skip
        try:
            yield lambda: server.take_away(120)
            assert program.poll() is None
        finally:
            program.terminate()
            program.wait(10)


@contextmanager
def asked_to_end(fleet: Fleet, folder: str) -> Iterator[Callable[[], object]]:
    """As Kubernetes ends a pod, and worker.sh a worker at Ctrl-C."""
    yield lambda: os.kill(fleet.nodes["first"].pid, signal.SIGTERM)


@pytest.mark.parametrize(
    "given",
    [
        (notified_manually, "after `ray drain-node`"),
        (notified_by_ec2, "after EC2's notice"),
        (asked_to_end, "by SIGTERM to `ray start`"),
    ],
)
def test_a_machine_that_is_taken_away_after_notice_costs_no_patch(
    given: tuple[Notice, str],
    hold: Hold,
    fleet: Fleet,
    tiny: PatchStore,
    tmp_path: Path,
    note: Note,
) -> None:
    notice, how = given
    folder = begin(tmp_path / "home", tiny, patches=6 * EVERY, reports=6)
    hold.at(EVERY)
    fleet.start(first=2)
    place = str(fleet.folders[-1])
    fleet.join(cpus=2)
    with searching(folder):
        wait_for(lambda: len(trials(folder)) == 2)
        fleet.start_worker("second", cpus=2)
        fleet.wait_for(cpus=4)
        with notice(fleet, place) as give:
            wait_for_reports(folder, 1)
            output = time.time()
            give()
            wait_for(lambda: all(saved(folder, run.id) % EVERY for run in trials(folder)))
            left = time.time()
            between = [saved(folder, run.id) - run.seen for run in trials(folder)]
            wait_for(lambda: not local_raylets(place))
        hold.release()
        fleet.kill("first")
        wait_for(lambda: all(run.retries == 1 for run in trials(folder)))
    assert all(0 < patches < EVERY for patches in between), "saved on notice, not at a report"
    assert_whole(
        f"a machine is taken away {how}: saved after {left - output:.1f} s", note, folder,
        patches=0, seconds=first_report_after(folder, output),
    )  # fmt: skip


def test_a_machine_that_goes_without_a_word_costs_less_than_one_report_interval(
    hold: Hold, fleet, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    folder = begin(tmp_path / "home", tiny, patches=4 * EVERY, reports=4)
    hold.at(2 * EVERY)
    fleet.start(first=2, second=2)
    fleet.join(cpus=4)
    with searching(folder):
        wait_for_reports(folder, 2)
        time.sleep(1)
        gone = time.time()
        fleet.kill("first")
        fleet.kill("second")
        again = patches_since_report(folder, gone)
        hold.release()
        fleet.start_worker("third", cpus=2)
    assert 0 < again <= 2 * EVERY, "of two trials"
    assert_whole(
        "both machines go without a word, another comes", note, folder,
        patches=again, seconds=first_report_after(folder, gone),
    )  # fmt: skip
