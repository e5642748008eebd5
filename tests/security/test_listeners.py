"""Nobody without the token enters a local search, a head or a worker; what listens where."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.local_session_patches import NO_METRICS, reload_authentication
from hpsearch.execution.ray_runtime import start_ray, stop_ray
from hpsearch.tracking.event_log import EventLog

from ..processes import begin
from ..servers import free_port
from .listeners import Door, doors, name, tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

LOCAL = Path(__file__).parents[2] / "cluster" / "local"
CLIENT, AGENT = 10001, 52365
"""Ports of Ray Client's server and of the dashboard's agent, as Ray has them."""
STALE = "0123456789" * 6
SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=9_600_000)

SEARCH = Search(suggest=suggest, budget=9_600_000, report_every=480, validation_points=8, trials=1,
                baseline=TrialConfig(patches=480))
"""
JOIN = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
ray.get(ray.remote(lambda: open(sys.argv[2], "w").close()).remote())
"""


@dataclass(frozen=True)
class Running:
    """A search in the middle of its trials."""

    pid: int
    home: Path
    """Of the user, with a token of earlier days."""
    temp: Path
    doors: list[Door]

    @property
    def token(self) -> str:
        head = next(pid for pid in tree(self.pid) if "gcs_server" in name(pid))
        variables = Path(f"/proc/{head}/environ").read_bytes().split(b"\0")
        found = dict(line.split(b"=", 1) for line in variables if b"=" in line)
        return found[b"RAY_AUTH_TOKEN"].decode()

    def door(self, process: str) -> Door:
        return next(door for door in self.doors if process in door.process)


def wait_for(what: Callable[[], object], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.5)


def unset() -> dict[str, str]:
    """What takes Ray's variables, also those of these tests, from a process's environment."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}


@pytest.fixture(scope="class")
def searching(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> Iterator[Running]:
    home, temp = tmp_path_factory.mktemp("user"), Path("/tmp") / f"hp-doors-{os.getpid()}"
    temp.mkdir(mode=0o755)
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(STALE)
    (home / "space.py").write_text(SPACE)
    log = home / "log"
    with pytest.MonkeyPatch.context() as patch:
        for variable in [key for key in os.environ if key.startswith("RAY_")]:
            patch.delenv(variable)
        process = begin(
            "search", home / "space.py", "--name", "open", "--data", tiny.path, "--cpus", 1,
            log=log, HOME=str(home), RAY_TMPDIR=str(temp), HPSEARCH_HOME=str(home / "runs"),
            RAY_ADDRESS="127.0.0.1:1", RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled",
            RAY_enable_metrics_collection="1", DASHBOARD_METRIC_PORT=str(free_port()),
        )  # fmt: skip
    event_log = EventLog(home / "runs" / "searches" / "open" / "ledger.jsonl")

    def trains() -> bool:
        assert process.poll() is None, log.read_text()
        return any(event["event"] == "report" for event in event_log.events())

    try:
        wait_for(trains)
        yield Running(process.pid, home, temp, doors(process.pid))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)
        shutil.rmtree(temp, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Door]]:
    """The doors of a head and a worker as the scripts start them, the head at a port of workers."""
    home, temps = tmp_path_factory.mktemp("cluster"), []
    environment = {
        **unset(), "HOME": str(home), "RAY_PORT": "10005", "RAY_DASHBOARD_PORT": str(free_port()),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    running: list[subprocess.Popen[bytes]] = []
    try:
        for script, *more in (("head.sh", "--num-cpus=0"), ("worker.sh", "--num-cpus=1")):
            temps.append(tempfile.mkdtemp(prefix="hp", dir="/tmp"))
            log = home / script
            with log.open("wb") as file:
                words = [LOCAL / script, "127.0.0.1", f"--temp-dir={temps[-1]}", *more]
                words += ["--object-store-memory=100000000"]
                running.append(
                    subprocess.Popen(
                        words, env=environment, stdout=file, stderr=file, start_new_session=True
                    )
                )
            wait_for(lambda log=log: "This command will now block forever" in log.read_text())

        def found() -> list[Door]:
            return [door for script in running for door in doors(script.pid)]

        wait_for(lambda: {CLIENT, AGENT} <= {door.port for door in found()})
        yield found()
    finally:
        for script in reversed(running):
            for pid in tree(script.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            script.wait()
        for temp in temps:
            shutil.rmtree(temp, ignore_errors=True)


def assert_shut(found: list[Door], written: Path, *, but: dict[str, set[str]]) -> None:
    """Nobody without the token gets more than pages without data, and no door runs code.

    Args:
        but: pages that are open, by what is in the command line of a process.
    """
    for door in found:
        free = {page for process, pages in but.items() if process in door.process for page in pages}
        pages, methods = door.get(written), door.ask()
        answered = {page for page, status in pages.items() if status not in (401, 403)}
        assert answered <= free, door
        assert {*methods.values()} <= {"UNAUTHENTICATED", "UNIMPLEMENTED"}, (door, methods)
        assert pages or "UNAUTHENTICATED" in methods.values(), f"nothing is known of {door}"
    assert not written.exists()


def assert_nobody_joins(address: str, home: Path, written: Path, **variables: str) -> None:
    """Neither without a token nor with one of earlier days."""
    tries = [
        subprocess.Popen(
            [sys.executable, "-c", JOIN, address, str(written)], stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True,
            env={**unset(), "HOME": str(home), "RAY_AUTH_MODE": mode, **token, **variables},
        )
        for mode, token in (("disabled", {}), ("token", {"RAY_AUTH_TOKEN": STALE}))
    ]  # fmt: skip
    said = [one.communicate(timeout=120)[1] for one in tries]
    assert all("InvalidAuthToken" in words for words in said), said
    assert all(one.returncode != 0 for one in tries)
    assert not written.exists()


class TestLocalSearch:
    """The search ends with these, since it trains as long as it runs."""

    def test_a_local_search_listens_on_loopback_alone(self, searching: Running) -> None:
        for process in (
            "hpsearch search",
            "gcs_server",
            "raylet/raylet",
            "DashboardAgent",
            "ray::",
        ):
            assert searching.door(process)
        assert [door for door in searching.doors if not door.is_loopback] == []

    def test_no_door_of_a_local_search_opens_without_its_token(
        self, searching: Running, tmp_path: Path
    ) -> None:
        assert_shut(searching.doors, tmp_path / "written", but={})
        head = searching.door("gcs_server")
        assert "OK" not in head.ask(STALE).values()
        assert "OK" in head.ask(searching.token).values(), "the test itself knocks at nothing"

    def test_nobody_joins_a_local_search(self, searching: Running, tmp_path: Path) -> None:
        address = f"127.0.0.1:{searching.door('gcs_server').port}"
        to_loopback = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else Ray tries another address
        assert_nobody_joins(address, searching.home, tmp_path / "written", **to_loopback)

    def test_the_token_is_in_no_file_and_an_older_one_is_left_alone(
        self, searching: Running
    ) -> None:
        token = searching.token.encode()
        assert len(token) == 64
        files = [
            path for folder in (searching.temp, searching.home) for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        ]  # fmt: skip
        assert len(files) > 10
        assert [path for path in files if token in path.read_bytes()] == []
        assert (searching.home / ".ray" / "auth_token").read_text() == STALE
        (private,) = searching.temp.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700, "Ray lets everybody write into its own"


@pytest.fixture
def authentication_reloaded() -> Iterator[None]:
    """After the test, and after the environment is back: Ray reads it again."""
    yield
    reload_authentication()


def test_each_local_session_has_a_token_of_its_own_and_gives_the_user_s_back(
    authentication_reloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray keeps the mode and the token that it has read first."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", STALE)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before, tokens = dict(os.environ), []
    for _ in range(2):
        start_ray(cpus=1)
        tokens.append(os.environ["RAY_AUTH_TOKEN"])
        assert ray.get(ray.remote(lambda: os.environ["RAY_AUTH_TOKEN"]).remote()) == tokens[-1]
        stop_ray()
        changed = {*NO_METRICS, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
        assert {n: os.environ.get(n) for n in changed} == {n: before.get(n) for n in changed}
    assert len({STALE, *tokens}) == 3


def test_no_door_of_a_cluster_by_hand_opens_without_its_token(
    cluster: list[Door], tmp_path: Path
) -> None:
    for process in ("gcs_server", "raylet/raylet", "DashboardAgent", "dashboard.py"):
        assert [door for door in cluster if process in door.process], process
    assert_shut(cluster, tmp_path / "written", but={"dashboard.py": {"GET /"}})
    assert [door for door in cluster if "monitor.py" in door.process] == [], "metrics are shut"
    (head,) = (door for door in cluster if "gcs_server" in door.process)
    assert head.port == 10005
    assert_nobody_joins(f"127.0.0.1:{head.port}", tmp_path, tmp_path / "written")
