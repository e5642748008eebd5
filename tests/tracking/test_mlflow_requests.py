"""Requests that the sender makes: few, and none that creates a second run."""

from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from hpsearch.config import SGD, TrialConfig
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_errors import TrackingError
from hpsearch.tracking.mlflow_mapping import batches
from hpsearch.tracking.mlflow_run_index import SEARCH_RUN, MlflowRunIndex
from hpsearch.tracking.mlflow_writer import SyncResult

from .outages import begin
from .test_mlflow_sync import children, mlflow_sync

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    made = EventLog(tmp_path / "ledger.jsonl")
    begin(made)
    return made


def start_trial(event_log: EventLog, number: int) -> None:
    config = TrialConfig(optimizer=SGD(lr=0.1 + number)).model_dump(mode="json")
    event_log.append("start", trial=f"t{number}", number=number, config=config)


def test_a_new_trial_costs_four_requests_and_a_report_one(
    event_log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, found = Counter[str](), mlflow_sync(event_log, tmp_path, "requests")
    found.sync()
    for name in ("get_run", "search_runs", "create_run", "log_inputs", "log_batch", "update_run"):
        ask = getattr(MlflowClient, name)
        monkeypatch.setattr(
            MlflowClient,
            name,
            lambda *given, _name=name, _ask=ask, **named: (
                asked.update([_name]) or _ask(*given, **named)
            ),
        )
    for number in range(3):
        start_trial(event_log, number)
    found.sync()
    assert asked == {"create_run": 3, "log_inputs": 3, "log_batch": 3}, "and three files"
    asked.clear()
    for number in (0, 2):
        metrics = {"val/mAP": 0.5}
        event_log.append("report", trial=f"t{number}", seen=1, objective=0.5, metrics=metrics)
    found.sync()
    assert asked == {"log_batch": 2}


def test_runs_of_another_process_and_of_a_failed_sync_are_found(
    event_log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, other = (mlflow_sync(event_log, tmp_path, "found") for _ in range(2))
    found.sync()
    start_trial(event_log, 0)
    other.sync()
    start_trial(event_log, 1)
    assert found.sync() == SyncResult(runs=3, created=1)
    with monkeypatch.context() as patch:
        create = MlflowClient.create_run
        patch.setattr(
            MlflowClient,
            "create_run",
            lambda *given, **named: create(*given, **named) and given[0].get_run("lost"),
        )
        start_trial(event_log, 2)
        with pytest.raises(TrackingError):
            found.sync()
    assert found.sync() == SyncResult(runs=4), "it was created, though the answer was lost"
    runs = children(found)
    assert runs.keys() == {"parent", "t0", "t1", "t2"}
    index = MlflowRunIndex(found.tracking, "found", event_log.search_id())
    assert index.has("t2"), "asks the server"
    assert index.ids == {SEARCH_RUN: found.search_run_id} | {
        t: found.run_id(t) for t in index.ids if t
    }
    for number in range(3):
        run = runs[f"t{number}"]
        assert run.data.params["optimizer.lr"] == str(0.1 + number)
        assert (run.data.tags["status"], run.data.tags["seed"]) == ("running", "0")
        assert run.inputs
        assert run.inputs.dataset_inputs[0].dataset.name == "tiny"


@given(st.lists(st.integers(1, 500), max_size=8), st.integers(0, 1_500))
def test_batches_hold_whole_reports_within_the_limit(sizes: list[int], num_others: int) -> None:
    reports = [
        {
            "time": 1.0,
            "seen": seen,
            "objective": 0.0,
            "metrics": dict.fromkeys(map(str, range(n)), 0.0),
        }
        for seen, n in enumerate(sizes)
    ]
    found = list(batches(reports, num_others=num_others))
    steps = [[metric.step for metric in batch] for batch in found]
    assert list(chain(*steps)) == [seen for seen, n in enumerate(sizes) for _ in range(n + 1)]
    assert all(not set(one) & set(other) for one, other in pairwise(steps)), "reports are whole"
    assert not found[0] or num_others + len(found[0]) <= 900
    assert all(len(batch) <= 900 for batch in found)
    assert all(found[1:]), "only the first may be empty"
