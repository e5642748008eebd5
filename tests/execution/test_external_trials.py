"""Trials that any process trains: rules as with Ray, several processes, one that is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import hpsearch as hp
from hpsearch.config.custom_source import MODULES_DIR
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.search.requests import append_request
from hpsearch.search.search_context import SearchContext, SearchPaths
from hpsearch.search.study import open_study
from hpsearch.search.warm_start import start_warm
from hpsearch.workflows.run_search import log_search_started
from hpsearch.workflows.search_handle import SearchHandle

from ..search_factory import plan

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.pruners import ASHA
from hpsearch.search.search import Search

CONFIG = dict(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=900)

def suggest(trial):
    return TrialConfig(optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), **CONFIG)

SEARCH = Search(suggest=suggest, budget=900, report_every=100, trials=4, validation_points=8,
                pruner=ASHA(reduction_factor=3), baseline=TrialConfig(**CONFIG))
"""
ASK = """
import sys, time
import hpsearch as hp
search = hp.open_search("far", home=sys.argv[1])
trial = search.ask()
search.report(trial, 100, {"val/mAP": 0.5})
print(trial.id, trial.config.optimizer.lr, flush=True)
time.sleep(600)
"""


@pytest.fixture
def search(tmp_path: Path, tiny: PatchStore) -> Iterator[SearchHandle]:
    with SearchHandle(plan(tmp_path / "home", tiny, SPACE, trials=4)) as opened:
        yield opened


def score(value: float) -> dict[str, float]:
    return {"val/mAP": value}


def test_the_rules_are_those_of_any_search(search: SearchHandle) -> None:
    good, bad = search.ask(), search.ask()
    assert good is not None
    assert bad is not None
    assert (good.number, bad.number) == (0, 1)
    assert good.config != bad.config
    assert not search.report(good, 100, score(0.9))
    assert search.report(bad, 100, score(0.1)), "ASHA stops it at the first rung"
    assert search.tell(bad, sync=False) == "pruned"
    assert not search.report(good, 900, score(0.95))
    assert search.tell(good, sync=False) == "completed"
    lost, broken = search.ask(), search.ask()
    assert lost is not None
    assert broken is not None
    assert search.tell(lost, status="failed", reason="no disk", sync=False) == "failed"
    search.report(broken, 100, score(0.99))
    assert search.tell(broken, status="diverged", reason="loss is NaN", sync=False) == "diverged"
    assert search.ask() is None
    assert search.is_complete
    table = search.trials()
    assert list(table.state) == ["completed", "pruned", "failed", "diverged"]
    assert list(table.seen) == [900, 100, 0, 100]
    assert table.value[0] == 0.95
    assert table["optimizer.lr"].nunique() == 4
    assert search.best.number == 0
    assert list(search.reports().seen) == [100, 900, 100, 100]
    states = [trial.state.name for trial in search.study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    assert search.study.best_value == 0.95


def test_a_killed_process_gives_its_trial_back(search: SearchHandle, tmp_path: Path) -> None:
    home = tmp_path / "home"
    process = subprocess.Popen([sys.executable, "-c", ASK, home], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        name, lr = output.readline().split()
    own = search.ask()
    assert own is not None
    assert own.id != name, "another process holds that one"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = search.ask()
    assert again is not None
    assert (again.id, str(again.config.optimizer.lr)) == (name, lr)
    run = search.state.runs[name]
    assert (run.status, run.retries, run.seen) == ("running", 1, 100)
    assert [e["event"] for e in search.context.event_log.events() if e.get("trial") == name] == [
        "start", "report", "worker_failed", "start",
    ]  # fmt: skip


def test_a_trial_that_kills_its_process_again_and_again_fails(search: SearchHandle) -> None:
    for _ in range(6):
        trial = search.ask()
        assert trial is not None
        assert trial.number == 0
        trial.lease.close()  # as the system does when a process dies
    trial = search.ask()
    assert trial is not None
    assert trial.number == 1
    assert search.state.runs["000"].status == "failed"


def test_a_trial_can_be_given_back(search: SearchHandle) -> None:
    trial = search.ask()
    assert trial is not None
    search.give_back(trial)
    with pytest.raises(UserError, match="has ended"):
        search.report(trial, 100, score(0.5))
    again = search.ask()
    assert again is not None
    assert again.number == trial.number


def test_a_process_with_ray_waits_for_them(search: SearchHandle) -> None:
    assert search.ask() is not None
    with pytest.raises(UserError, match="running in another process"):
        hp.resume_search("far", home=search.context.home)
    other = hp.open_search("far", home=search.context.home)
    search.close()
    with search.context.lock(), pytest.raises(UserError) as caught:
        other.ask()
    assert caught.value.code == "search-running"


def test_wrong_reports_are_refused(search: SearchHandle) -> None:
    trial = search.ask()
    assert trial is not None
    for seen, metrics, code in (
        (100, {"loss": 1.0}, "missing-metric"),
        (100, {"val/mAP": float("nan")}, "metric-not-finite"),
        (100, {"val/mAP": 10**400}, "metric-not-finite"),
        (100, {"val/mAP": "0.5"}, "metric-not-finite"),
    ):
        with pytest.raises(UserError) as caught:
            search.report(trial, seen, metrics)  # type: ignore[arg-type]
        assert caught.value.code == code
    with pytest.raises(UserError) as caught:
        search.tell(trial, sync=False)
    assert caught.value.code == "no-report"
    search.report(trial, 100, {"val/mAP": np.float32(0.5)})  # type: ignore[arg-type]
    with pytest.raises(UserError) as caught:
        search.report(trial, 100, score(0.5))
    assert caught.value.code == "report-out-of-order"
    for wrong in (0, -5, "100", True, 10**30):
        with pytest.raises(UserError) as caught:
            search.report(trial, wrong, score(0.5))  # type: ignore[arg-type]
        assert caught.value.code == "invalid-seen"


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [("complete", "", "unknown-status"), ("failed", ValueError("x"), "invalid-reason")],
)
def test_an_end_that_the_event_log_cannot_hold_is_refused(
    search: SearchHandle, status: Any, reason: Any, code: str
) -> None:
    trial = search.ask()
    assert trial is not None
    search.report(trial, 100, score(0.5))
    with pytest.raises(UserError) as caught:
        search.tell(trial, status=status, reason=reason, sync=False)
    assert caught.value.code == code
    assert search.tell(trial, sync=False) == "completed", "the trial is still open"
    assert [run.status for run in search.context.runs] == ["completed"]


def test_requests_hold_here_too(search: SearchHandle) -> None:
    log = search.context.event_log
    append_request(log, "try-point", point={"lr": 0.005})
    trial = search.ask()
    assert trial is not None
    assert trial.config.optimizer.lr == 0.005
    append_request(log, "pause")
    assert search.ask() is None
    append_request(log, "continue")
    after = search.ask()
    assert after is not None
    assert after.config.optimizer.lr != 0.005, "a point is tried once"
    append_request(log, "stop-trial", trial=trial.id)
    assert search.report(trial, 100, score(0.99))
    assert search.tell(trial, sync=False) == "pruned"
    assert search.state.runs[trial.id].reason == "stopped on request"


def test_a_study_is_exported_and_imported(search: SearchHandle, tmp_path: Path) -> None:
    trial = search.ask()
    assert trial is not None
    search.report(trial, 900, score(0.7))
    search.tell(trial, sync=False)
    url = f"sqlite:///{tmp_path / 'out.db'}"
    assert search.export_study(url) == "far"
    copy = optuna.load_study(study_name="far", storage=url)
    assert [one.value for one in copy.trials] == [0.7]
    with pytest.raises(UserError, match="exists"):
        search.export_study(url)
    context = search.context.changed(warm_start_from=f"{url}#far")
    folder = tmp_path / "other"
    folder.mkdir()
    other = SearchContext(SearchPaths(folder, "far"), context.record).with_search(search.search)
    other.paths.folder.mkdir(parents=True)
    assert start_warm(other) == (1, 1)
    assert start_warm(other) == (1, 1)
    imported = open_study(other.paths.folder, search=search.search).trials
    assert [one.value for one in imported] == [0.7], "once"
    for source, code in ((f"{url}#none", "no-such-study"), (f"{url}#down", "incomparable-study")):
        optuna.create_study(
            study_name="down", storage=url, direction="minimize", load_if_exists=True
        )
        with pytest.raises(UserError) as caught:
            start_warm(other.changed(warm_start_from=source))
        assert caught.value.code == code


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_trial_is_trained_here_and_sent_to_mlflow(search: SearchHandle, tiny: PatchStore) -> None:
    context = search.context
    log_search_started(context, context.search, tiny)
    trial = search.ask()
    assert trial is not None
    assert search.train(trial) == "completed"
    run = context.state.runs[trial.id]
    assert [report["seen"] for report in run.reports][-1] >= 900
    assert len(run.reports) == 9
    assert 0 <= run.last["system/cpu_utilization_percentage"] <= 100
    assert (trial.folder / "trial.pt").exists(), "the winner's network is read from there"
    tracking = context.tracking()
    found = tracking.client().search_runs([tracking.experiment_id()])
    kinds = sorted(one.data.tags["hpsearch.kind"] for one in found)
    assert kinds == ["search", "trial"]
    sent = next(one.data.metrics for one in found if one.data.tags["hpsearch.kind"] == "trial")
    names = {name for name in run.last if name.startswith("system/")}
    assert {name: sent[name] for name in names} == {name: run.last[name] for name in names}


OWN_SPACE = """
from hpsearch.config import Custom, L2Net, Pairs, TrialConfig
from hpsearch.search.search import Search

NETWORK = L2Net(width=0.125, unit_norm=True)

def suggest(trial):
    loss = Custom(object="own_near:Near", params={"broken": trial.suggest_int("broken", 0, 1)})
    return TrialConfig(loss=loss, sampler=Pairs(batch=8), descriptor=NETWORK, patches=32)

SEARCH = Search(suggest=suggest, budget=32, report_every=32, trials=2, validation_points=8,
                initial_points=({"broken": 1}, {"broken": 0}), baseline=TrialConfig(patches=32))
"""
OWN_LOSS = """
def Near(x, broken):
    if broken:
        raise ValueError("no luck")
    return (x[0] - x[1]).norm()
"""


def test_a_trial_whose_own_object_fails_fails_alone_with_one_sentence(
    tmp_path: Path, tiny: PatchStore
) -> None:
    context = plan(tmp_path / "home", tiny, OWN_SPACE, trials=2)
    modules = context.paths.space.with_name(MODULES_DIR)
    modules.mkdir(exist_ok=True)
    (modules / "own_near.py").write_text(OWN_LOSS)
    with SearchHandle(context) as search:
        broken, good = search.ask(), search.ask()
        assert broken is not None
        assert good is not None
        with pytest.raises(UserError, match=r"own_near:Near fails at own_near.py:4 .*no luck"):
            search.train(broken)
        assert search.train(good) == "completed"
        assert [run.status for run in search.state.runs.values()] == ["failed", "completed"]
        assert search.state.runs[broken.id].reason.count("\n") == 0
        assert "own_near:Near" in search.state.runs[broken.id].reason
