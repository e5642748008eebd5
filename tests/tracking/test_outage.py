"""A real tracking server that is paused, killed, slow, or lies: no point is lost or doubled."""

import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from hpsearch.errors import UserError
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_errors import TrackingError, translate_all_errors
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.mlflow_tags import SEARCH_ID

from .outages import Proxy, Server, begin, expected, found, proxy_to, wait_for_events, write_trials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    made = Server(folder, f"sqlite:///{folder}/mlflow.db")
    made.start()
    yield made
    made.kill()


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


@pytest.fixture
def event_log(tmp_path: Path) -> EventLog:
    made = EventLog(tmp_path / "ledger.jsonl")
    begin(made)
    return made


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with proxy_to(server.port) as made:
        yield made


def mlflow_sync(event_log: EventLog, uri: str, name: str) -> MlflowSync:
    return MlflowSync(
        event_log, TrackingServer(uri=uri), name, event_log.path.with_name("published.json")
    )


def assert_exact(event_log: EventLog, server: Server) -> None:
    assert found(event_log, MlflowClient(server.database)) == expected(event_log)


def test_paused_killed_and_restarted_amid_eight_trials(event_log: EventLog, server: Server) -> None:
    feeding = mlflow_sync(event_log, server.uri, "faults")
    feeding.start()
    writing = threading.Thread(
        target=partial(write_trials, event_log, trials=8, reports=30, pause=0.2)
    )
    writing.start()
    wait_for_events(event_log, 40)
    server.signal(signal.SIGSTOP)
    wait_for_events(event_log, 80)
    server.signal(signal.SIGCONT)
    wait_for_events(event_log, 40)
    server.kill()
    wait_for_events(event_log, 20)
    server.start()
    writing.join()
    assert feeding.stop(timeout=60), feeding.last_error
    assert_exact(event_log, server)


@pytest.mark.parametrize("fault", ["slow", "refusing", "points are taken, unanswered"])
def test_a_server_with_a_fault(
    fault: str, event_log: EventLog, server: Server, proxy: Proxy
) -> None:
    if fault == "slow":
        proxy.delay = 0.1
    elif fault == "refusing":
        proxy.refuse("503 Service Unavailable")
    else:
        proxy.losing = b"runs/log-batch"
    feeding = mlflow_sync(event_log, proxy.uri, fault)
    feeding.start()
    write_trials(event_log, trials=2, reports=4, pause=0.3)
    if fault != "slow":
        until = time.monotonic() + 120
        while "MLflow" not in feeding.last_error:
            assert time.monotonic() < until, "no error is noticed"
            time.sleep(0.1)
        proxy.behave()
    assert feeding.stop(timeout=60) or mlflow_sync(event_log, server.uri, fault).sync()
    assert_exact(event_log, server)


def test_runs_that_were_made_without_an_answer_are_found_and_second_ones_deleted(
    event_log: EventLog, server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the client asks twice by itself
    write_trials(event_log, trials=2, reports=2, pause=0.0)
    proxy.losing = b"runs/create"
    with pytest.raises(TrackingError):
        mlflow_sync(event_log, proxy.uri, "made twice").sync()
    assert len(runs_of(event_log, server)) == 2, "the fault did what it is for"
    proxy.behave()
    mlflow_sync(event_log, server.uri, "made twice").sync()
    assert len(runs_of(event_log, server)) == 3
    assert_exact(event_log, server)


def runs_of(event_log: EventLog, server: Server) -> list[str]:
    client = MlflowClient(server.database)
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    rule = f"tags.`{SEARCH_ID}` = '{event_log.search_id()}'"
    return [run.info.run_id for run in client.search_runs([experiment.experiment_id], rule)]


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        ("401 Unauthorized", "who are you", "mlflow-credentials"),
        ("404 Not Found", "<html>", "not-mlflow"),
        ("200 OK", "<html>welcome</html>", "not-mlflow"),
        ("503 Service Unavailable", "later", "mlflow-server-error"),
    ],
)
def test_what_is_wrong_in_one_sentence(
    status: str, body: str, code: str, event_log: EventLog, proxy: Proxy
) -> None:
    proxy.refuse(status, body, "text/html")
    asked = mlflow_sync(event_log, proxy.uri, "wrong")
    with (
        pytest.raises(UserError, match=proxy.uri) as caught,
        translate_all_errors(asked.tracking.uri),
    ):
        asked.sync()
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert code != "mlflow-server-error" or "503" in str(caught.value)
