"""Requests to searches and their state, by functions and by commands, without Ray."""

import fcntl
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hpsearch.cli import app
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.search.requests import SearchRequests
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.mlflow_links import all_trials_view_url
from hpsearch.tracking.mlflow_tags import ALL_TRIALS_VIEW, SAVED_VIEW_PREFIX, SEARCH_NAME_TAG
from hpsearch.workflows import steer_search
from hpsearch.workflows.doctor import diagnose
from hpsearch.workflows.housekeeping import disk_usage, plan_removal, remove_search
from hpsearch.workflows.resume_search import _follow_resume

from ..search_factory import plan
from .test_callbacks import log_trial

SPACE = """
from hpsearch.config import Adam, TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=900)

SEARCH = Search(suggest=suggest, budget=900, report_every=100, trials=4,
                baseline=TrialConfig(patches=900))
"""


@pytest.fixture
def context(tmp_path: Path, tiny: PatchStore) -> SearchContext:
    found = plan(tmp_path / "home", tiny, SPACE, trials=4)
    log_trial(found, 0, "completed", 0.5)
    log_trial(found, 1, "running")
    return found


@contextmanager
def running(context: SearchContext) -> Iterator[None]:
    """As if another process ran the search."""
    with context.paths.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_a_search_runs_while_its_lock_is_held_and_not_while_another_looks(
    context: SearchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not steer_search.is_running(context), "no process has begun"
    with context.paths.lock.open("w") as file:
        for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH):  # with Ray, and asking for trials
            fcntl.flock(file, kind)
            assert steer_search.is_running(context)
        # another `status` at the same moment, which ends while this one waits
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr(
            "hpsearch.atomic_files.time.sleep", lambda seconds: fcntl.flock(file, fcntl.LOCK_UN)
        )
        assert not steer_search.is_running(context)


def command(context: SearchContext, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--home", str(context.home)])
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_list_status_and_show_name_the_state(context: SearchContext) -> None:
    assert "far" in command(context, "list")
    assert "interrupted" in command(context, "status", "far")
    with running(context):
        words = command(context, "status", "far")
        assert words.startswith("far: running")
        assert "1 of 4 trials ended (1 completed, 1 running)" in words
        assert "best last val/mAP 0.5000, trial 000" in words
        steer_search.pause(context)
        assert "paused" in command(context, "list")
    command(context, "note", "far", "a jump", "--trial", "1")
    shown = command(context, "show", "far")
    assert "note 001: a jump" in shown
    assert "Leaderboard of far" in shown


def test_requests_are_events_that_the_driver_reads(context: SearchContext) -> None:
    driver = SearchRequests(context.event_log)
    command(context, "try", "far", '{"lr": 0.005}')
    output = command(context, "stop", "far", "--trial", "1")
    assert "trial 001 stops when the search is resumed" in output, "nothing runs"
    command(context, "concurrency", "far", "3")
    with running(context):
        command(context, "pause", "far")
    assert driver.refresh()
    assert [point.params for point in driver.points] == [{"lr": 0.005}]
    assert driver.stopped_trials == {"001"}
    assert (driver.max_concurrent_trials, driver.paused) == (3, True)
    with running(context):
        assert "started again" in command(context, "resume", "far")
    driver.refresh()
    assert not driver.paused
    assert context.runs[1].status == "running", "a request changes no trial by itself"


def test_a_paused_trial_ends_at_once_where_a_search_runs(context: SearchContext) -> None:
    with running(context):
        assert "stops at its next report" in command(context, "stop", "far", "--trial", "1")
        context.event_log.append("trial_paused", trial="001")
        assert "is paused, and ends now" in command(context, "stop", "far", "--trial", "1")


def test_a_stop_is_for_the_session_that_runs(context: SearchContext) -> None:
    driver = SearchRequests(context.event_log)
    with running(context):
        assert not steer_search.stop_search(context, timeout=0.0)
    driver.refresh()
    assert driver.stop_requested
    assert not SearchRequests(context.event_log).stop_requested, "the next session runs"


def test_a_search_that_completed_first_was_not_stopped(
    context: SearchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complete(asked: SearchContext, *, timeout: float) -> bool:
        asked.event_log.append("search_finished", status="completed")
        return True

    monkeypatch.setattr(steer_search, "stop_search", complete)
    output = command(context, "stop", "far")
    assert "completed before" in output
    assert "resume" not in output
    with pytest.raises(UserError, match="`hpsearch resume far") as caught:
        command(context, "pause", "far")
    assert caught.value.code == "search-not-running", "two trials and the scores are left"


def test_options_of_a_resume_replace_requests(context: SearchContext) -> None:
    steer_search.set_concurrency(context, 3)
    with running(context):
        steer_search.pause(context)
    _follow_resume(context, {"max_concurrent_trials": 2})
    found = SearchRequests(context.event_log)
    assert (found.max_concurrent_trials, found.paused) == (2, False)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("try", "far", '{"momentum": 1}'), "unknown-parameter"),
        (("try", "far", "lr=3"), "invalid-point"),
        (("stop", "far", "--trial", "0"), "trial-ended"),
        (("stop", "far", "--trial", "77"), "no-such-trial"),
        (("stop", "far"), "search-not-running"),
        (("pause", "far"), "search-not-running"),
        (("note", "far", "x", "--trial", "77"), "no-such-trial"),
        (("note", "far", " "), "empty-note"),
        (("stop", "far", "--trial", "1", "--address", "http://head:8265"), "trial-on-cluster"),
    ],
)
def test_what_cannot_be_done_is_refused(
    context: SearchContext, words: tuple[str, ...], code: str
) -> None:
    before = context.paths.event_log.read_bytes()
    with pytest.raises(UserError) as caught:
        command(context, *words)
    assert caught.value.code == code
    assert context.paths.event_log.read_bytes() == before


def test_no_point_is_tried_when_all_trials_were_started(context: SearchContext) -> None:
    for number in (2, 3):
        log_trial(context, number, "completed", 0.1)
    with pytest.raises(UserError, match="extend far --trials 5"):
        steer_search.enqueue_trial(context, {"lr": 0.005})


def test_a_search_is_archived_and_removed(context: SearchContext, tmp_path: Path) -> None:
    (context.paths.trials_dir / "000").mkdir(parents=True)
    (context.paths.trials_dir / "000" / "trial.pt").write_bytes(bytes(3_000_000))
    assert next(use.name for use in disk_usage(context.home)) == "searches/far"
    output = tmp_path / "far.tar.gz"
    command(context, "archive", "far", "--output", str(output))
    with tarfile.open(output) as archive:
        names = archive.getnames()
    assert {"far/space.py", "far/ledger.jsonl", "far/search.json"} <= set(names)
    assert not any("trials" in name or "lock" in name for name in names)
    with running(context), pytest.raises(UserError) as caught:
        plan_removal(context)
    assert caught.value.code == "search-running"
    declined = CliRunner().invoke(app, ["rm", "far", "--home", str(context.home)], input="n\n")
    assert declined.exit_code == 1
    assert context.paths.folder.is_dir()
    assert remove_search(plan_removal(context)) == 0
    assert not context.paths.folder.exists()
    assert "no search" in command(context, "list")


@pytest.mark.filterwarnings("ignore")
def test_a_search_is_removed_with_its_runs_in_mlflow_and_no_other(
    context: SearchContext, tiny: PatchStore
) -> None:
    other = Workspace(context.home).create("near", context.paths.space, context.record)
    log_trial(other, 0, "completed", 0.5)
    for search in (context, other):
        search.mlflow_sync().sync()
    tracking = context.tracking()
    client, experiment = tracking.client(), tracking.experiment_id()
    assert len(client.search_runs([experiment])) == 5, "two searches with two trials and one"
    table = all_trials_view_url(tracking)
    view = json.loads(client.get_experiment(experiment).tags[SAVED_VIEW_PREFIX + ALL_TRIALS_VIEW])
    assert table.endswith(f"viewStateShareKey={ALL_TRIALS_VIEW}")
    assert view["selectedColumns"][0] == "metrics.`val/mAP`"
    assert "removed search far and 3 runs" in command(context, "rm", "far", "--yes")
    left = client.search_runs([experiment])
    assert [run.data.tags[SEARCH_NAME_TAG] for run in left] == ["near", "near"]
    views = [tag for tag in client.get_experiment(experiment).tags if SAVED_VIEW_PREFIX in tag]
    assert len(views) == 2, "of the other search and of all"


def test_a_diagnosis_holds_no_secret(
    context: SearchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:1")
    text = "\n".join(diagnose(context.home))
    assert "hunter2" not in text
    assert "MLFLOW_TRACKING_PASSWORD" in text
    assert "torch 2." in text
    for line in (
        "in each process, which may be raised to",
        "/dev/shm",
        "proxies ",
        "heads that run on",
    ):
        assert line in text
