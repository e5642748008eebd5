"""MLflow from the ledger, on a real SQLite backend: nested, complete, once."""

import json
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from hpsearch.config import SGD, TrialConfig
from hpsearch.config.formatting import flatten
from hpsearch.search.objective import REPORTED_METRICS, RESTORATION_METRICS
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_errors import TrackingError
from hpsearch.tracking.mlflow_mapping import metric_name
from hpsearch.tracking.mlflow_sync import MlflowSync, SyncStateFile
from hpsearch.tracking.mlflow_tags import (
    PARENT_RUN_ID,
    PARENT_SEARCH_ID,
    RUN_KIND,
    SEARCH_NAME_TAG,
    artifact_location,
    default_uri,
)
from hpsearch.tracking.mlflow_writer import MlflowWriter, SyncResult
from hpsearch.training.costs import COST_METRICS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

STATUSES = {
    "completed": "FINISHED",
    "pruned": "FINISHED",
    "collapsed": "FAILED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    found = EventLog(tmp_path / "ledger.jsonl")
    dataset = {"name": "tiny", "fingerprint": "f" * 64, "path": "/x", "profile": "{}"}
    found.append("search", params={"trials": 3}, dataset=dataset, direction="maximize")
    return found


def mlflow_sync(event_log: EventLog, home: Path, search: str) -> MlflowSync:
    uri = default_uri(home)
    tracking = TrackingServer(uri=uri, artifact_root=artifact_location(uri, home))
    return MlflowSync(event_log, tracking, search, event_log.path.with_name("published.json"))


def write_trial(event_log: EventLog, number: int, status: str, reports: int = 3) -> None:
    trial = f"t{number}"
    config = TrialConfig(optimizer=SGD(lr=0.1 * (number + 1))).model_dump(mode="json")
    event_log.append("start", trial=trial, number=number, config=config)
    for i in range(1, reports + 1):
        value = number / 10 + i / 100
        metrics = {"val/mAP": value, "train/loss": 1 / i}
        event_log.append("report", trial=trial, seen=100 * i, objective=value, metrics=metrics)
    event_log.append("trial_finished", trial=trial, status=status, reason="because")


def children(found: MlflowSync) -> dict[str, Run]:
    client = found.tracking.client()
    experiment = client.get_experiment_by_name(found.tracking.experiment)
    assert experiment is not None
    rule = f"tags.`{SEARCH_NAME_TAG}` = '{found.search}'"
    runs = client.search_runs([experiment.experiment_id], rule)
    return {run.data.tags.get("hpsearch.trial", "parent"): run for run in runs}


def history(client: MlflowClient, run: Run, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]


def test_a_search_is_a_parent_with_one_child_a_trial(event_log: EventLog, home: Path) -> None:
    for number, status in enumerate(STATUSES):
        write_trial(event_log, number, status)
    event_log.append("search_finished", status="completed")
    found = mlflow_sync(event_log, home, "nested")
    found.sync()
    runs = children(found)
    parent = runs.pop("parent")
    assert parent.data.tags[RUN_KIND] == "search"
    assert parent.info.status == "FINISHED"
    assert {run.data.tags[PARENT_RUN_ID] for run in runs.values()} == {parent.info.run_id}
    for number, (status, mlflow_status) in enumerate(STATUSES.items()):
        run = runs[f"t{number}"]
        assert (run.data.tags["status"], run.info.status) == (status, mlflow_status)
        assert float(run.data.params["optimizer.lr"]) == pytest.approx(0.1 * (number + 1))
        assert run.data.params["loss"] == "triplet"
    dataset = parent.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("tiny", "f" * 16)


def test_a_paused_trial_is_a_run_that_has_not_ended_and_resumes(
    event_log: EventLog, home: Path
) -> None:
    config = TrialConfig().model_dump(mode="json")
    report = {"trial": "t0", "objective": 0.1, "metrics": {"val/mAP": 0.1}}
    found, states = mlflow_sync(event_log, home, "paused"), list[tuple[str, str, bool]]()
    for event, fields in (
        ("trial_paused", {}), ("start", {"number": 0, "config": config}),
        ("trial_finished", {"status": "completed", "reason": ""}),
    ):  # fmt: skip
        if not states:
            event_log.append("start", trial="t0", number=0, config=config)
        event_log.append("report", seen=100 * (len(states) + 1), **report)
        event_log.append(event, trial="t0", **fields)
        found.sync()
        info = children(found)["t0"].info
        states.append((info.run_id, info.status, info.end_time is not None))
    assert {run_id for run_id, *_ in states} == {states[0][0]}
    assert [state[1:] for state in states] == [
        ("SCHEDULED", False), ("RUNNING", False), ("FINISHED", True),
    ]  # fmt: skip
    assert children(found)["t0"].data.tags["retries"] == "0", "a pause is no failure"


def test_a_promotion_stands_under_its_search_on_every_server(
    event_log: EventLog, home: Path, tmp_path: Path
) -> None:
    below = EventLog(tmp_path / "below" / "ledger.jsonl")
    below.path.parent.mkdir()
    dataset = {"name": "tiny", "fingerprint": "f" * 64, "path": "/x", "profile": "{}"}
    tags = {PARENT_SEARCH_ID: event_log.search_id()}
    below.append("search", params={}, dataset=dataset, direction="maximize", tags=tags)
    alone = mlflow_sync(below, tmp_path, "alone")
    alone.sync()
    assert PARENT_RUN_ID not in children(alone)["parent"].data.tags, "the search is not there"
    for server in (home, tmp_path / "other"):
        server.mkdir(exist_ok=True)
        above, found = (
            mlflow_sync(event_log, server, "above"),
            mlflow_sync(below, server, "beneath"),
        )
        above.sync()
        found.sync()
        assert children(found)["parent"].data.tags[PARENT_RUN_ID] == above.search_run_id


def test_metrics_stand_over_patches_seen_and_the_config_is_whole(
    event_log: EventLog, home: Path
) -> None:
    write_trial(event_log, 0, "completed")
    found = mlflow_sync(event_log, home, "points")
    found.sync()
    client, run = found.tracking.client(), children(found)["t0"]
    assert history(client, run, "val/mAP") == [(100, 0.01), (200, 0.02), (300, 0.03)]
    path = client.download_artifacts(run.info.run_id, "config.json")
    config = TrialConfig(optimizer=SGD(lr=0.1)).model_dump(mode="json")
    assert Path(path).read_text() == json.dumps(config, indent=2), "as MLflow writes a dict"


def test_what_does_not_change_in_a_trial_is_drawn_behind_the_curves() -> None:
    """MLflow's page of curves has a section for each beginning up to the last slash, by name."""
    constant = [*RESTORATION_METRICS, *COST_METRICS, "val/collapsed", "shared/made_seconds"]
    curves = [metric_name(name) for name in REPORTED_METRICS if name not in constant]
    last = max(name.rpartition("/")[0] for name in curves)
    for name in map(metric_name, constant):
        assert name.startswith("system/") or name.rpartition("/")[0] > last, name
    assert len({*map(metric_name, REPORTED_METRICS)}) == len(REPORTED_METRICS)


def test_the_incumbent_is_charted_on_the_parent(event_log: EventLog, home: Path) -> None:
    for number, status in ((0, "completed"), (2, "pruned"), (1, "completed")):
        write_trial(event_log, number, status)
    found = mlflow_sync(event_log, home, "incumbent")
    found.sync()
    values = history(found.tracking.client(), children(found)["parent"], "best/objective")
    assert values == [(1, 0.03), (2, 0.03), (3, pytest.approx(0.13))]


def test_sending_again_doubles_nothing(event_log: EventLog, home: Path) -> None:
    write_trial(event_log, 0, "completed")
    found = mlflow_sync(event_log, home, "again")
    assert found.sync() == SyncResult(runs=2, created=2, sent=3)
    assert found.sync() == SyncResult(runs=2)
    assert mlflow_sync(event_log, home, "again").sync() == SyncResult(runs=2), "a new process knows"
    assert found.sync(full=True) == SyncResult(runs=2, already_present=3)
    runs = children(found)
    assert len(runs) == 2
    assert len(history(found.tracking.client(), runs["t0"], "val/mAP")) == 3


def test_only_runs_that_changed_are_looked_at_and_the_state_is_read_once(
    event_log: EventLog, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, read = list[str](), SyncStateFile.read
    for number in range(2):
        write_trial(event_log, number, "completed", reports=1)
    found = mlflow_sync(event_log, home, "changed")
    send = MlflowWriter._send_run
    monkeypatch.setattr(
        MlflowWriter, "_send_run", lambda *given: looked.append(given[1].id) or send(*given)
    )
    found.sync()
    assert looked == ["t0", "t1"]
    monkeypatch.setattr(SyncStateFile, "read", lambda *given: pytest.fail("read again"))
    config = TrialConfig(optimizer=SGD(lr=0.2)).model_dump(mode="json")
    event_log.append("start", trial="t1", number=1, config=config)
    metrics = {"val/mAP": 0.5}
    event_log.append("report", trial="t1", seen=200, objective=0.5, metrics=metrics)
    assert found.sync() == SyncResult(runs=3, sent=1)
    assert looked == ["t0", "t1", "t1"]
    monkeypatch.setattr(SyncStateFile, "read", read)
    assert mlflow_sync(event_log, home, "changed").sync() == SyncResult(runs=3)
    assert looked == ["t0", "t1", "t1"], "a new process knows what was sent"


def test_a_new_process_goes_on_in_the_same_runs(event_log: EventLog, home: Path) -> None:
    event_log.append("start", trial="t0", number=0, config=TrialConfig().model_dump(mode="json"))
    metrics = {"val/mAP": 0.1}
    event_log.append("report", trial="t0", seen=100, objective=0.1, metrics=metrics)
    mlflow_sync(event_log, home, "restart").sync()
    event_log.append("report", trial="t0", seen=200, objective=0.1, metrics=metrics)
    event_log.append("trial_finished", trial="t0", status="completed")
    after = mlflow_sync(event_log, home, "restart")
    after.sync()
    runs = children(after)
    assert runs.keys() == {"parent", "t0"}
    assert [step for step, _ in history(after.tracking.client(), runs["t0"], "val/mAP")] == [
        100,
        200,
    ]
    assert runs["t0"].info.status == "FINISHED"


def test_a_report_that_a_resumed_trial_repeats_is_one_point(
    event_log: EventLog, home: Path
) -> None:
    config = TrialConfig().model_dump(mode="json")
    for seen in (100, 200, 200, 300):
        if seen == 100 or event_log.events()[-1].get("seen") == 200:
            event_log.append("start", trial="t0", number=0, config=config)
        metrics = {"val/mAP": seen / 1000}
        event_log.append("report", trial="t0", seen=seen, objective=0.1, metrics=metrics)
    found = mlflow_sync(event_log, home, "repeated")
    found.sync()
    points = history(found.tracking.client(), children(found)["t0"], "val/mAP")
    assert points == [(100, 0.1), (200, 0.2), (300, 0.3)]


def test_the_thread_sends_what_comes_and_drains_at_the_end(event_log: EventLog, home: Path) -> None:
    found = mlflow_sync(event_log, home, "thread")
    found.start()
    for number in range(3):
        write_trial(event_log, number, "completed", reports=5)
    assert found.stop(timeout=60)
    runs = children(found)
    assert len(runs) == 4
    assert len(history(found.tracking.client(), runs["t2"], "train/loss")) == 5


def test_a_dead_server_holds_nothing_up_and_loses_nothing(
    event_log: EventLog, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    write_trial(event_log, 0, "completed")
    dead = MlflowSync(
        event_log,
        TrackingServer(uri="http://127.0.0.1:9"),
        "outage",
        event_log.path.with_name("sent.json"),
    )
    with pytest.raises(TrackingError):
        dead.sync()
    dead.start()
    assert not dead.stop(timeout=10)
    assert dead.last_error
    alive = mlflow_sync(event_log, home, "outage")
    alive.sync()
    assert len(history(alive.tracking.client(), children(alive)["t0"], "val/mAP")) == 3


def test_what_all_trials_share_is_neither_a_parameter_nor_in_the_name(
    tmp_path: Path, home: Path
) -> None:
    event_log = EventLog(tmp_path / "ledger.jsonl")
    config = TrialConfig(optimizer=SGD(lr=0.1), patches=7_000)
    shared = {key: value for key, value in flatten(config).items() if key != "optimizer.lr"}
    dataset = {"name": "tiny", "fingerprint": "f" * 64, "path": "/x", "profile": "{}"}
    event_log.append(
        "search", params={}, dataset=dataset, direction="maximize", constants=shared,
        tags={"version.torch": "2"},
    )  # fmt: skip
    for number, changed in enumerate((config, config.model_copy(update={"patches": 8_000}))):
        messages = changed.model_dump(mode="json")
        event_log.append("start", trial=f"t{number}", number=number, config=messages)
    found = mlflow_sync(event_log, home, "shared")
    found.sync()
    runs = children(found)
    assert runs["t0"].data.params == {"optimizer.lr": "0.1"}
    assert runs["t1"].data.params == {"optimizer.lr": "0.1", "patches": "8000"}, "a rare value"
    assert runs["t0"].info.run_name == "000 triplet · batch 50 · sgd 0.1"
    assert runs["t0"].data.tags["seed"] == "0"
    assert runs["parent"].data.tags["version.torch"] == "2"
    assert runs["t0"].inputs.dataset_inputs[0].dataset.digest == "f" * 16


def test_a_run_that_somebody_deleted_holds_up_no_other(event_log: EventLog, home: Path) -> None:
    start = {"config": TrialConfig().model_dump(mode="json")}
    report = {"objective": 0.5, "metrics": {"val/mAP": 0.5}}
    for trial in ("t0", "t1"):
        event_log.append("start", trial=trial, number=int(trial[1]), **start)
    found = mlflow_sync(event_log, home, "deleted")
    found.sync()
    found.tracking.client().delete_run(found.run_id("t0"))
    for trial in ("t0", "t1"):
        event_log.append("report", trial=trial, seen=100, **report)
    found.sync()
    runs = children(found)
    assert runs.keys() == {"parent", "t1"}
    assert runs["t1"].data.metrics["val/mAP"] == 0.5


def test_two_searches_of_one_name_do_not_share_runs(tmp_path: Path, home: Path) -> None:
    dataset = {"name": "tiny", "fingerprint": "f" * 64, "path": "/x", "profile": "{}"}
    event_logs = [EventLog(tmp_path / name / "ledger.jsonl") for name in ("one", "other")]
    for event_log in event_logs:
        event_log.append("search", params={}, dataset=dataset, direction="maximize")
        write_trial(event_log, 0, "completed")
    feeds = [mlflow_sync(event_log, home, "namesake") for event_log in event_logs]
    assert [feed.sync().created for feed in feeds] == [2, 2]
    assert feeds[0].search_run_id != feeds[1].search_run_id
    assert feeds[0].run_id("t0") != feeds[1].run_id("t0")


def test_a_server_that_lost_everything_gets_it_again(event_log: EventLog, tmp_path: Path) -> None:
    write_trial(event_log, 0, "completed")
    found = mlflow_sync(event_log, tmp_path, "lost")
    found.sync()
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table}")
    database.close()
    event_log.append("search_finished", status="completed")
    with pytest.raises(TrackingError):
        found.sync()
    assert found.sync().sent == 3
    assert len(history(found.tracking.client(), children(found)["t0"], "val/mAP")) == 3
