"""A search as a job of a cluster: submitted, stopped, resumed, by the real command."""

import time
from pathlib import Path

from hpsearch.data.patch_store import PatchStore
from hpsearch.search.workspace import Workspace

from .commands import Jobs
from .faults import Hold
from .searches import MARKS, seen, space_of, trials, wait_for_reports

pytestmark = MARKS


def test_a_search_is_submitted_stopped_resumed_and_ends(
    hold: Hold, fleet, tiny: PatchStore, tmp_path: Path
) -> None:
    hold.at(2_400)
    fleet.start_head(cpus=2, dashboard=8361)
    jobs = Jobs("http://127.0.0.1:8361")
    space, home = tmp_path / "elsewhere" / "mine.py", tmp_path / "home"
    space.parent.mkdir()
    space.write_text(space_of(patches=38_400, reports=16))
    options = ["--home", str(home), "--data", str(tiny.path)]
    deadline = time.monotonic() + 300
    while (sent := jobs.run("submit", space, *options)).returncode:
        starting = ("no Ray head answers", "there are 0 CPUs")  # the latter: without a node yet
        assert any(words in sent.stderr for words in starting), sent.stderr
        assert time.monotonic() < deadline, "no head"
    assert "hpsearch status mine" in sent.stdout
    jobs.wait_for("mine", "0 of 2 trials", 300)
    context = Workspace(home).open("mine")
    wait_for_reports(context, 1)
    assert "is running on http" in jobs.run("submit", space).stderr
    stopped = jobs.run("stop", "mine")
    assert "mine: stopped" in stopped.stdout, stopped.stdout + stopped.stderr
    assert {run.status for run in trials(context)} == {"interrupted"}
    hold.release()
    assert "has stopped on" in jobs.run("submit", space).stderr
    assert jobs.run("resume", "mine").returncode == 0
    jobs.wait_for("mine", "mine: completed", 1_200)
    assert "Registered patch-descriptor version 1" in jobs.run("logs", "mine").stdout
    assert "completed" in jobs.run("list").stdout
    shown = jobs.run("show", "mine").stdout
    assert shown.startswith("mine: completed\n")
    assert "Leaderboard of mine" in shown
    assert len(jobs.run("list").stdout.splitlines()) == 1, "what only looked has left nothing"
    assert [seen(run) for run in trials(context)] == [[2_400 * i for i in range(1, 17)]] * 2


def test_an_address_that_is_no_head_is_one_sentence() -> None:
    for address, words in (
        ("127.0.0.1:8265", "is not the address of a job server"),
        ("http://127.0.0.1:9", "no Ray head answers"),
    ):
        refused = Jobs(address).run("list")
        assert refused.returncode == 2
        assert words in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
