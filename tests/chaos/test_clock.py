"""A clock that is set while a whole search runs: its driver, Ray and the workers."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from mlflow import MlflowClient

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.resumable_trial import SECONDS_METRIC
from hpsearch.reporting.leaderboard import summarize
from hpsearch.search.search_context import SearchContext
from hpsearch.search.stopping import FINISH_ORDER_ATTR
from hpsearch.search.study import open_study
from hpsearch.search.trial_queue import format_trial_id

from ..fake_clock import make_clock
from .commands import Command
from .conftest import Note
from .faults import Hold
from .invariants import assert_mlflow_agrees, assert_whole
from .searches import MARKS, space_of, trials

pytestmark = MARKS
HOUR = 3_600
LIMIT = 900
"""Seconds that the search may take."""
LEFT = re.compile(r"about (\S+) (s|min) left")


def test_a_clock_that_is_set_forth_and_back_changes_nothing(
    hold: Hold, command: Command, tiny: PatchStore, tmp_path: Path, note: Note
) -> None:
    clock = make_clock(tmp_path)
    hold.at(1_600)
    space = command.write_space(space_of(patches=6_400, trials=3, reports=8))
    began = time.time()
    options = ("--name", "far", "--data", tiny.path, "--device", "cpu", "--cpus", 2)
    search = command.begin("search", space, *options, "--time-limit", LIMIT, **clock.variables)
    command.wait_for_reports(2, search)
    assert {"gcs_server", "raylet", "ray::"} <= set(whose_clock_is(clock.library))
    clock.set(HOUR)
    forth = time.time()
    hold.at(3_200)
    command.wait_for_reports(4, search)
    clock.set(-HOUR)
    back = time.time()
    hold.release()
    command.finish(search)
    took = time.time() - began

    events = command.context.event_log.events()
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert began <= times[0] <= times[-1] <= began + took
    went_on = [
        min(e["time"] for e in events if e["event"] == "report" and e["time"] > moment) - moment
        for moment in (forth, back)
    ]
    assert_mlflow_agrees(command.context, command.uri)
    assert_whole(
        "clock set by +1 h, then by -2 h, under driver, Ray and workers", note, command.context,
        patches=0, seconds=max(went_on),
    )  # fmt: skip
    for run in trials(command.context):
        spent = [0.0, *(report["metrics"][SECONDS_METRIC] for report in run.reports)]
        assert all(0 < after - before < took for before, after in pairwise(spent))
        assert run.retries == 0
    totals = summarize(command.context.runs, budget=6_400)
    assert 0 < totals.seconds < took
    assert 0 < totals.trial_seconds < 2 * took
    assert_ends_in_order(command.context)
    output = (command.home / "log").read_text()
    assert "limit" not in output
    left = [float(number) * (60 if unit == "min" else 1) for number, unit in LEFT.findall(output)]
    assert left
    assert all(0 <= seconds < LIMIT for seconds in left)
    assert_runs_last(command)


def whose_clock_is(library: Path) -> Iterator[str]:
    """Ray's processes whose clock is the one that is set."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(library) in (process / "maps").read_text():
                words = (process / "cmdline").read_text()
                yield from (name for name in ("gcs_server", "raylet", "ray::") if name in words)


def assert_ends_in_order(context: SearchContext) -> None:
    """By the study, whose own times were turned round, as by the ledger."""
    output = open_study(context.paths.folder, search=context.search).get_trials()
    times = [(trial.datetime_start, trial.datetime_complete) for trial in output]
    assert any(start and end and end < start for start, end in times), "the clock was set"
    output.sort(key=lambda trial: trial.user_attrs[FINISH_ORDER_ATTR])
    ends = [
        event["trial"] for event in context.event_log.events() if event["event"] == "trial_finished"
    ]
    assert [format_trial_id(trial.number) for trial in output] == ends[: len(output)]


def assert_runs_last(command: Command) -> None:
    """Every run in MLflow has ended after it began, and as long after as the ledger says."""
    client = MlflowClient(command.uri)
    (found,) = (e for e in client.search_experiments() if e.name == "hpsearch")
    kept = client.search_runs([found.experiment_id])
    assert len(kept) == 5, "the search, three trials, the baseline"
    for run in kept:
        assert run.info.end_time is not None
        assert 0 < run.info.end_time - run.info.start_time < 1_000 * LIMIT
