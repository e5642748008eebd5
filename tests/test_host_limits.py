"""Proxies, open files and shared memory of this machine, with real servers and real limits."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.request import install_opener

import pytest
import requests

from hpsearch.errors import UserError
from hpsearch.execution.job_client import JobClient
from hpsearch.host_limits import (
    OPEN_FILES_WANTED,
    exempt_this_machine_from_proxies,
    proxy_hint,
    proxy_of,
)
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.mlflow_errors import MlflowUnavailableError
from hpsearch.workflows.notifications import Notifier, send

from .security.test_addresses import head
from .servers import answering, free_port, serving
from .workflows.test_notifications import Server

NAMES = ("http_proxy", "https_proxy", "all_proxy")
UNSET = ("no_proxy", "NO_PROXY", *NAMES, *map(str.upper, NAMES))
SetProxy = Callable[[str], None]


@pytest.fixture
def set_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[SetProxy]:
    """Send all web requests of this process to a proxy; afterwards all is as before."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in UNSET:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def set_all(proxy: str) -> None:
        install_opener(None)  # type: ignore[arg-type]  # it keeps the proxies of its first request
        for name in NAMES:
            monkeypatch.setenv(name, proxy)
            monkeypatch.setenv(name.upper(), proxy)

    yield set_all
    install_opener(None)  # type: ignore[arg-type]


@pytest.fixture
def dead_proxy(set_proxy: SetProxy) -> str:
    proxy = f"http://127.0.0.1:{free_port()}"
    set_proxy(proxy)
    return proxy


def test_requests_to_this_machine_bypass_a_proxy(dead_proxy: str) -> None:
    with answering(200) as server, pytest.raises(requests.exceptions.ProxyError):
        requests.get(f"http://{server}", timeout=5)
    with Server() as listener, serving(listener):
        send(listener.url, b"{}")
    assert listener.bodies == [{}]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_mlflow_server_of_this_machine_is_asked_directly(dead_proxy: str) -> None:
    with answering(200, b'{"experiments": []}') as server:
        client = TrackingServer(uri=f"http://{server}").client()
        assert list(client.search_experiments()) == []


def test_a_head_of_this_machine_is_asked_directly(dead_proxy: str) -> None:
    with head() as (address, asked):
        assert JobClient(address).jobs() == []
    assert "GET /api/jobs/" in asked


def test_hosts_that_the_user_exempts_stay_exempt(
    dead_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "mlflow.lab, .internal")
    for _ in range(2):
        exempt_this_machine_from_proxies()
    assert proxy_of("http://elsewhere.example/x") == dead_proxy
    for host in ("mlflow.lab:5000", "a.internal", "localhost:1", "127.0.0.1:1", "[::1]:1"):
        assert not proxy_of(f"http://{host}/x"), host
        assert not requests.utils.get_environ_proxies(f"http://{host}/x"), host


def test_without_a_proxy_the_environment_is_left_alone(
    set_proxy: SetProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "mlflow.lab")
    exempt_this_machine_from_proxies()
    assert proxy_of("http://127.0.0.1") == proxy_hint("http://mlflow.example") == ""
    assert "no_proxy" not in os.environ


def test_a_refusal_of_a_proxy_names_it_without_its_password(set_proxy: SetProxy) -> None:
    """A proxy answers for every host, also for those that only this network knows."""
    for status, code in ((403, "mlflow-credentials"), (503, "mlflow-server-error")):
        with answering(status) as proxy:
            set_proxy(f"http://me:hunter2@{proxy}")
            with pytest.raises(MlflowUnavailableError) as mlflow:
                TrackingServer(uri="http://mlflow.lab:5000").check_experiment(must_answer=True)
            with pytest.raises(UserError) as ray:
                JobClient("http://head.lab:8265").jobs()
        assert mlflow.value.code == code
        for refused, host in ((mlflow, "mlflow.lab"), (ray, "head.lab")):
            assert f"through the proxy http://{proxy}; NO_PROXY={host}" in str(refused.value)
            assert "hunter2" not in str(refused.value)


def test_a_message_that_a_proxy_keeps_back_names_it(dead_proxy: str) -> None:
    notifier = Notifier(["http://hook.lab/x"], retry_waits=())
    notifier.on_search_end(None, KeyboardInterrupt())
    assert dead_proxy in notifier.failures[0]


LIMIT = """
import resource, sys
from hpsearch.host_limits import raise_open_file_limit
soft, hard, workers = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    raise_open_file_limit(workers)
except ValueError as error:
    print(error.code)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("limits", "workers", "output"),
    [
        ((256, 9_000), 2, ["9000"]),
        ((72, 72), 2, ["too-few-open-files", "72"]),
        ((256, 256), 2, ["256"]),
        ((256, 1_024), 128, ["too-few-open-files", "1024"]),
    ],
)
def test_the_limit_of_open_files_is_raised_or_refused(
    limits: tuple[int, int], workers: int, output: list[str]
) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 9_000 > 0
    assert OPEN_FILES_WANTED > 9_000
    words = [sys.executable, "-c", LIMIT, *map(str, limits), str(workers)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == output
