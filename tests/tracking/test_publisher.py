"""MLflow from the ledger, on a real SQLite backend: nested, complete, once."""

import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from hpsearch.config import SGD, TrialConfig
from hpsearch.config.formatting import flatten
from hpsearch.tracking.connection import Tracking, TrackingError
from hpsearch.tracking.event_log import Ledger
from hpsearch.tracking.mlflow_sync import Publisher
from hpsearch.tracking.mlflow_tags import (
    BENEATH,
    KIND,
    PARENT,
    SEARCH,
    artifact_location,
    default_uri,
)
from hpsearch.tracking.mlflow_writer import Delivery

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

STATUSES = {
    "completed": "FINISHED",
    "pruned": "KILLED",
    "collapsed": "KILLED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path / "ledger.jsonl")
    dataset = {"name": "tiny", "fingerprint": "f" * 64, "path": "/x", "profile": "{}"}
    found.append("search", params={"trials": 3}, dataset=dataset, direction="maximize")
    return found


def publisher(ledger: Ledger, home: Path, search: str) -> Publisher:
    uri = default_uri(home)
    tracking = Tracking(uri=uri, artifacts=artifact_location(uri, home))
    return Publisher(ledger, tracking, search, ledger.path.with_name("published.json"))


def write_trial(ledger: Ledger, number: int, status: str, reports: int = 3) -> None:
    trial = f"t{number}"
    config = TrialConfig(optimiser=SGD(lr=0.1 * (number + 1))).model_dump(mode="json")
    ledger.append("start", trial=trial, number=number, config=config)
    for i in range(1, reports + 1):
        value = number / 10 + i / 100
        metrics = {"val/mAP": value, "train/loss": 1 / i}
        ledger.append("report", trial=trial, seen=100 * i, objective=value, metrics=metrics)
    ledger.append("end", trial=trial, status=status, reason="because")


def children(found: Publisher) -> dict[str, Run]:
    client = found.tracking.client()
    experiment = client.get_experiment_by_name(found.tracking.experiment)
    assert experiment is not None
    rule = f"tags.`{SEARCH}` = '{found.search}'"
    runs = client.search_runs([experiment.experiment_id], rule)
    return {run.data.tags.get("hpsearch.trial", "parent"): run for run in runs}


def history(client: MlflowClient, run: Run, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]


def test_a_search_is_a_parent_with_one_child_a_trial(ledger: Ledger, home: Path) -> None:
    for number, status in enumerate(STATUSES):
        write_trial(ledger, number, status)
    ledger.append("finish", status="completed")
    found = publisher(ledger, home, "nested")
    found.sync()
    runs = children(found)
    parent = runs.pop("parent")
    assert parent.data.tags[KIND] == "search"
    assert parent.info.status == "FINISHED"
    assert {run.data.tags[PARENT] for run in runs.values()} == {parent.info.run_id}
    for number, (status, mlflow_status) in enumerate(STATUSES.items()):
        run = runs[f"t{number}"]
        assert (run.data.tags["status"], run.info.status) == (status, mlflow_status)
        assert float(run.data.params["optimiser.lr"]) == pytest.approx(0.1 * (number + 1))
        assert run.data.params["loss"] == "triplet"
    dataset = parent.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("tiny", "f" * 16)


def test_a_promotion_stands_beneath_its_search_on_every_server(
    ledger: Ledger, home: Path, tmp_path: Path
) -> None:
    below = Ledger(tmp_path / "below" / "ledger.jsonl")
    below.path.parent.mkdir()
    dataset = {"name": "tiny", "fingerprint": "f" * 64, "path": "/x", "profile": "{}"}
    tags = {BENEATH: ledger.identity()}
    below.append("search", params={}, dataset=dataset, direction="maximize", tags=tags)
    alone = publisher(below, tmp_path, "alone")
    alone.sync()
    assert PARENT not in children(alone)["parent"].data.tags, "the search is not there"
    for server in (home, tmp_path / "other"):
        server.mkdir(exist_ok=True)
        above, found = publisher(ledger, server, "above"), publisher(below, server, "beneath")
        above.sync()
        found.sync()
        assert children(found)["parent"].data.tags[PARENT] == above.parent


def test_metrics_stand_over_patches_seen_and_the_config_is_whole(
    ledger: Ledger, home: Path
) -> None:
    write_trial(ledger, 0, "completed")
    found = publisher(ledger, home, "points")
    found.sync()
    client, run = found.tracking.client(), children(found)["t0"]
    assert history(client, run, "val/mAP") == [(100, 0.01), (200, 0.02), (300, 0.03)]
    path = client.download_artifacts(run.info.run_id, "config.json")
    assert TrialConfig.model_validate_json(Path(path).read_text()) == TrialConfig()


def test_the_incumbent_is_charted_on_the_parent(ledger: Ledger, home: Path) -> None:
    for number, status in ((0, "completed"), (2, "pruned"), (1, "completed")):
        write_trial(ledger, number, status)
    found = publisher(ledger, home, "incumbent")
    found.sync()
    values = history(found.tracking.client(), children(found)["parent"], "best/objective")
    assert values == [(1, 0.03), (2, 0.03), (3, pytest.approx(0.13))]


def test_sending_again_doubles_nothing(ledger: Ledger, home: Path) -> None:
    write_trial(ledger, 0, "completed")
    found = publisher(ledger, home, "again")
    assert found.sync() == Delivery(runs=2, created=2, sent=3)
    assert found.sync() == Delivery(runs=2)
    assert publisher(ledger, home, "again").sync() == Delivery(runs=2), "a new process knows"
    assert found.sync(again=True) == Delivery(runs=2, there=3)
    runs = children(found)
    assert len(runs) == 2
    assert len(history(found.tracking.client(), runs["t0"], "val/mAP")) == 3


def test_a_new_process_goes_on_in_the_same_runs(ledger: Ledger, home: Path) -> None:
    ledger.append("start", trial="t0", number=0, config=TrialConfig().model_dump(mode="json"))
    metrics = {"val/mAP": 0.1}
    ledger.append("report", trial="t0", seen=100, objective=0.1, metrics=metrics)
    publisher(ledger, home, "restart").sync()
    ledger.append("report", trial="t0", seen=200, objective=0.1, metrics=metrics)
    ledger.append("end", trial="t0", status="completed")
    after = publisher(ledger, home, "restart")
    after.sync()
    runs = children(after)
    assert runs.keys() == {"parent", "t0"}
    assert [step for step, _ in history(after.tracking.client(), runs["t0"], "val/mAP")] == [
        100,
        200,
    ]
    assert runs["t0"].info.status == "FINISHED"


def test_a_report_that_a_resumed_trial_repeats_is_one_point(ledger: Ledger, home: Path) -> None:
    config = TrialConfig().model_dump(mode="json")
    for seen in (100, 200, 200, 300):
        if seen == 100 or ledger.events()[-1].get("seen") == 200:
            ledger.append("start", trial="t0", number=0, config=config)
        metrics = {"val/mAP": seen / 1000}
        ledger.append("report", trial="t0", seen=seen, objective=0.1, metrics=metrics)
    found = publisher(ledger, home, "repeated")
    found.sync()
    points = history(found.tracking.client(), children(found)["t0"], "val/mAP")
    assert points == [(100, 0.1), (200, 0.2), (300, 0.3)]


def test_the_thread_sends_what_comes_and_drains_at_the_end(ledger: Ledger, home: Path) -> None:
    found = publisher(ledger, home, "thread")
    found.start()
    for number in range(3):
        write_trial(ledger, number, "completed", reports=5)
    assert found.stop(patience=60)
    runs = children(found)
    assert len(runs) == 4
    assert len(history(found.tracking.client(), runs["t2"], "train/loss")) == 5


def test_a_dead_server_holds_nothing_up_and_loses_nothing(
    ledger: Ledger, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    write_trial(ledger, 0, "completed")
    dead = Publisher(
        ledger, Tracking(uri="http://127.0.0.1:9"), "outage", ledger.path.with_name("sent.json")
    )
    with pytest.raises(TrackingError):
        dead.sync()
    dead.start()
    assert not dead.stop(patience=10)
    assert dead.last_error
    alive = publisher(ledger, home, "outage")
    alive.sync()
    assert len(history(alive.tracking.client(), children(alive)["t0"], "val/mAP")) == 3


def test_what_all_trials_share_is_neither_a_parameter_nor_in_the_name(
    tmp_path: Path, home: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    config = TrialConfig(optimiser=SGD(lr=0.1), patches=7_000)
    shared = {key: value for key, value in flatten(config).items() if key != "optimiser.lr"}
    dataset = {"name": "tiny", "fingerprint": "f" * 64, "path": "/x", "profile": "{}"}
    ledger.append(
        "search", params={}, dataset=dataset, direction="maximize", constants=shared,
        tags={"version.torch": "2"},
    )  # fmt: skip
    for number, changed in enumerate((config, config.model_copy(update={"patches": 8_000}))):
        told = changed.model_dump(mode="json")
        ledger.append("start", trial=f"t{number}", number=number, config=told)
    found = publisher(ledger, home, "shared")
    found.sync()
    runs = children(found)
    assert runs["t0"].data.params == {"optimiser.lr": "0.1"}
    assert runs["t1"].data.params == {"optimiser.lr": "0.1", "patches": "8000"}, "a rare value"
    assert runs["t0"].info.run_name == "000 triplet · batch 50 · sgd 0.1"
    assert runs["t0"].data.tags["seed"] == "0"
    assert runs["parent"].data.tags["version.torch"] == "2"
    assert runs["t0"].inputs.dataset_inputs[0].dataset.digest == "f" * 16


def test_a_run_that_somebody_deleted_holds_up_no_other(ledger: Ledger, home: Path) -> None:
    start = {"config": TrialConfig().model_dump(mode="json")}
    report = {"objective": 0.5, "metrics": {"val/mAP": 0.5}}
    for trial in ("t0", "t1"):
        ledger.append("start", trial=trial, number=int(trial[1]), **start)
    found = publisher(ledger, home, "deleted")
    found.sync()
    found.tracking.client().delete_run(found.run_id("t0"))
    for trial in ("t0", "t1"):
        ledger.append("report", trial=trial, seen=100, **report)
    found.sync()
    runs = children(found)
    assert runs.keys() == {"parent", "t1"}
    assert runs["t1"].data.metrics["val/mAP"] == 0.5


def test_two_searches_of_one_name_do_not_share_runs(tmp_path: Path, home: Path) -> None:
    dataset = {"name": "tiny", "fingerprint": "f" * 64, "path": "/x", "profile": "{}"}
    ledgers = [Ledger(tmp_path / name / "ledger.jsonl") for name in ("one", "other")]
    for ledger in ledgers:
        ledger.append("search", params={}, dataset=dataset, direction="maximize")
        write_trial(ledger, 0, "completed")
    feeds = [publisher(ledger, home, "namesake") for ledger in ledgers]
    assert [feed.sync().created for feed in feeds] == [2, 2]
    assert feeds[0].parent != feeds[1].parent
    assert feeds[0].run_id("t0") != feeds[1].run_id("t0")


def test_a_server_that_lost_everything_gets_it_again(ledger: Ledger, tmp_path: Path) -> None:
    write_trial(ledger, 0, "completed")
    found = publisher(ledger, tmp_path, "lost")
    found.sync()
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"DELETE FROM {table}")
    database.close()
    ledger.append("finish", status="completed")
    with pytest.raises(TrackingError):
        found.sync()
    assert found.sync().sent == 3
    assert len(history(found.tracking.client(), children(found)["t0"], "val/mAP")) == 3
