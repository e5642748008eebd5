"""Real searches in a real S3 server, on machines and by a server that are killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")

from mlflow import MlflowClient
from ray._private.ray_constants import WORKER_PROCESS_SETUP_HOOK_ENV_VAR

from hpsearch.object_storage.home_session import PASS_S, HomeSession
from hpsearch.object_storage.lease import LEASE_S
from hpsearch.object_storage.mirror import Mirror
from hpsearch.object_storage.object_store import ObjectStore
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace
from tests import processes
from tests.chaos import faults
from tests.chaos.searches import space_of
from tests.object_storage.conftest import ADMIN, Proxy, S3Server

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(3_000),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
PATIENCE_S = 1_200.0


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@dataclass(frozen=True)
class Machine:
    """A machine with nothing but the address of a home: own folders, processes and name."""

    folder: Path
    home: str
    endpoint: str

    def __post_init__(self) -> None:
        self.folder.mkdir()

    def _call(self, words: tuple[object, ...], log: Path) -> subprocess.Popen[bytes]:
        variables = processes.environment(
            HOME=str(self.folder), HPSEARCH_CACHE=str(self.folder / "cache"), COLUMNS="200",
            TMPDIR=str(self.folder), **self.variables,
        )  # fmt: skip
        inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
        called = [sys.executable, "-m", "hpsearch", *map(str, words), "--home", self.home]
        with log.open("ab") as out:
            return subprocess.Popen(
                [*inside, *called], env=variables, stdout=out, stderr=out, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ADMIN[0], "AWS_SECRET_ACCESS_KEY": ADMIN[1],
        }  # fmt: skip

    def begin(self, *words: object) -> subprocess.Popen[bytes]:
        return self._call(words, self.folder / "log")

    def run(self, *words: object, code: int = 0) -> str:
        """Output of a command that ends with this code."""
        log = self.folder / f"output-{time.monotonic_ns()}"
        done = self._call(words, log)
        assert done.wait(PATIENCE_S) == code, log.read_text()[-3000:]
        return log.read_text()

    def output(self) -> str:
        return (self.folder / "log").read_text()

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    @property
    def context(self) -> SearchContext:
        """The search as it lies in this machine's folder."""
        found = next((self.folder / "cache" / "homes").iterdir())
        return Workspace(found).open("far")

    def has_reported(self, trial: str, count: int) -> bool:
        logs = list((self.folder / "cache" / "homes").glob("*/searches/far/ledger.jsonl"))
        runs = {run.id: run for run in self.context.runs} if logs else {}
        return trial in runs and len(runs[trial].reports) >= count

    def sees_reports(self, trial: str, count: int) -> bool:
        """True once the store has so many reports of a trial."""
        self.run("status", "far")
        return self.has_reported(trial, count)


@pytest.fixture
def machine(tmp_path: Path, s3_server: S3Server) -> Callable[..., Machine]:
    """A machine by its name, at the home of this test."""
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "--pid", "--fork", "--mount-proc", "--uts", "true"], check=False
        ).returncode
    ):
        pytest.skip("only root may give processes a machine of their own")
    home = f"s3://lab/{tmp_path.name}"
    return lambda name, endpoint=s3_server.endpoint: Machine(tmp_path / name, home, endpoint)


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> faults.Hold:
    """Holds the trials of all searches that begin from now on."""
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(Path(faults.__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv(faults.MARKED, str(marks))
    monkeypatch.setenv(WORKER_PROCESS_SETUP_HOOK_ENV_VAR, "faults.arm")
    return faults.Hold(marks)


Machines = Callable[..., Machine]


def search(machine: Machine, *, patches: int, trials: int, reports: int) -> subprocess.Popen[bytes]:
    space = machine.folder / "space.py"
    space.write_text(space_of(patches=patches, trials=trials, reports=reports))
    options = ("--data", "tiny", "--cpus", 1, "--max-concurrent-trials", 1, "--device", "cpu")
    return machine.begin("search", space, "--name", "far", *options)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def assert_whole(context: SearchContext, trials: int, reports: int) -> None:
    """All trials completed, and each step was reported once."""
    runs = [run for run in context.runs if run.kind == "trial"]
    assert [run.status for run in runs] == ["completed"] * trials
    for run in runs:
        steps = [report["seen"] for report in run.reports]
        assert len(steps) == len(set(steps)) == reports


def test_a_search_killed_in_mid_trial_is_resumed_elsewhere_with_nothing_but_its_address(
    machine: Machines, hold: faults.Hold
) -> None:
    first, second, third = (machine(name) for name in ("first", "second", "third"))
    hold.at(9_600)
    driver = search(first, patches=24_000, trials=3, reports=20)
    try:
        wait_for(lambda: first.has_reported("000", 8), "the first trial reports")
        wait_for(lambda: "far: running" in second.run("status", "far"), "the lease names it")
        wait_for(lambda: "000" in second.run("show", "far"), "its first trial is committed")
        second.run("note", "far", "seen from afar", "--trial", "000")
        second.run("try", "far", '{"lr": 0.005}')
        assert "paused" not in second.run("list")
        refused = second.run("resume", "far", code=2)
        assert "in use by process" in refused
        assert len(refused.strip().splitlines()) == 1
        wait_for(lambda: "note 000: seen from afar" in second.run("show", "far"), "the note")
        second.run("stop", "far", "--trial", "000")
        wait_for(lambda: first.has_reported("001", 8), "the second trial reports")
        stopped = {run.id: run for run in first.context.runs}["000"]
        assert (stopped.status, stopped.reason) == ("pruned", "stopped on request")
        assert first.context.runs[1].config.optimizer.lr == 0.005
        wait_for(lambda: second.sees_reports("001", 8), "its reports are committed")
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    hold.release()
    killed, reported = time.time(), len(first.context.runs[1].reports)
    assert "in use by process" in second.run("resume", "far", code=2), "for a minute"
    time.sleep(max(0.0, killed + LEASE_S + 5 - time.time()))
    both = [second.begin("resume", "far"), third.begin("resume", "far")]
    wait_for(lambda: any(one.poll() is not None for one in both), "one of two is refused")
    ((refused_at, loser),) = [(n, one) for n, one in enumerate(both) if one.poll() is not None]
    assert loser.returncode == 2
    winner, other = (third, second) if refused_at == 0 else (second, third)
    assert "in use" in other.output() or "has begun to write" in other.output()
    try:
        assert both[1 - refused_at].wait(PATIENCE_S) == 0, winner.output()[-3000:]
    finally:
        end(both[1 - refused_at])
    runs = [run for run in winner.context.runs if run.kind == "trial"]
    assert [run.status for run in runs] == ["pruned", "completed", "completed"]
    assert (runs[1].retries, runs[1].retrained_patches) == (1, 0), "started twice, trained once"
    resumed = winner.output()
    assert f" {1_200:,} patches" not in resumed.split("001 started")[1].split("002 started")[0]
    assert len({report["seen"] for report in runs[1].reports}) == len(runs[1].reports) >= reported
    database = winner.context.home / "mlflow.db"
    assert histories(database) == {run.id: len(run.reports) for run in runs if run.kind == "trial"}
    fourth = machine("fourth")
    assert "far: completed" in fourth.run("status", "far")
    assert not list(fourth.folder.rglob("*.pt")), "a glance needs no checkpoints"
    fourth.run("sync", "far")
    assert histories(fourth.context.home / "mlflow.db") == histories(database)
    for words in (("list",), ("show", "far"), ("report", "far"), ("du",), ("archive", "far")):
        fourth.run(*words)
    fourth.run("describe", "far/001", "tiny", "--output", "descriptors")
    fourth.run("evaluate", "far/001", "--data", "tiny")
    fourth.run("promote", "far", "--dry-run")
    fourth.run("rm", "far", "--yes")
    assert "no search" in third.run("list")
    for path in (p for m in (first, second, third, fourth) for p in m.files()):
        assert ADMIN[1].encode() not in path.read_bytes(), f"{path} holds the secret"


def histories(database: Path) -> dict[str, int]:
    """Reports of each trial in MLflow."""
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`hpsearch.kind` = 'trial'")
    return {
        run.data.tags["hpsearch.trial"]: len(client.get_metric_history(run.info.run_id, "val/mAP"))
        for run in runs
    }


def test_a_search_outlives_a_server_that_is_killed_throttles_refuses_and_delays(
    machine: Machines, s3_proxy: Proxy, s3_server: S3Server
) -> None:
    first, second = machine("first", s3_proxy.endpoint), machine("second")
    s3_proxy.troubled = True
    driver = search(first, patches=24_000, trials=2, reports=20)
    try:
        wait_for(lambda: first.has_reported("000", 4), "the first trial reports")
        s3_server.kill()
        before = len(first.context.runs[0].reports)
        wait_for(lambda: first.has_reported("000", before + 3), "training does not wait")
        time.sleep(10)
        s3_server.start()
        assert driver.wait(PATIENCE_S) == 0, first.output()[-3000:]
    finally:
        end(driver)
    second.run("list")
    second.run("report", "far")
    assert_whole(second.context, 2, 20)


def test_a_server_that_stays_away_costs_nothing_but_a_sentence(
    machine: Machines, s3_proxy: Proxy
) -> None:
    first = machine("first", s3_proxy.endpoint)
    driver = search(first, patches=9_600, trials=1, reports=8)
    try:
        wait_for(lambda: first.has_reported("000", 2), "the first trial reports")
        upstream, s3_proxy.upstream = s3_proxy.upstream, "127.0.0.1:9"
        assert driver.wait(PATIENCE_S) == 2
    finally:
        end(driver)
    assert "has not answered for 120 s" in first.output()
    assert "what is not there yet lies in" in first.output()
    s3_proxy.upstream = upstream
    first.run("sync", "far")
    second = machine("second")
    second.run("report", "far")
    assert_whole(second.context, 1, 8)


def test_a_damaged_checkpoint_in_the_store_costs_one_interval(
    machine: Machines, hold: faults.Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = machine("first"), machine("second")
    hold.at(7_200)
    driver = search(first, patches=24_000, trials=1, reports=20)
    try:
        wait_for(lambda: first.has_reported("000", 6), "the trial reports")
        time.sleep(2 * PASS_S)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    hold.release()
    for name, value in first.variables.items():
        monkeypatch.setenv(name, value)
    store = ObjectStore(first.home)
    mirror = Mirror(first.folder / "reader", store)
    HomeSession(mirror).refresh()
    reports = len(Workspace(mirror.folder).open("far").runs[0].reports)
    (latest,) = mirror.log.state.files["searches/far/trials/000/trial.pt"]
    store.put(f"blobs/{latest['sha256']}", b"damaged")
    time.sleep(LEASE_S + 5)
    resumed = second.begin("resume", "far")
    try:
        assert resumed.wait(PATIENCE_S) == 0, second.output()[-3000:]
    finally:
        end(resumed)
    assert "resumes from the checkpoint before" in second.output()
    assert "restarts from scratch" not in second.output()
    assert_whole(second.context, 1, 20)
    assert reports == 6
