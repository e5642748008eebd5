"""Homes on a real S3 server: conditions, throttling, lost answers, refusals, kill and restart."""

from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")

from typer.testing import CliRunner

from hpsearch.cli import app
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.object_storage import object_store
from hpsearch.object_storage.home_session import HomeSession, open_home
from hpsearch.object_storage.mirror import Mirror
from hpsearch.object_storage.object_store import ObjectStore
from hpsearch.search.requests import SearchRequests
from tests import processes
from tests.object_storage.conftest import ADMIN, READER, Proxy, S3Server
from tests.search_factory import plan
from tests.workflows.test_callbacks import log_trial


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    use(monkeypatch, *ADMIN)


def use(monkeypatch: pytest.MonkeyPatch, key: str, secret: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)


def write_and_read(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_home(address) as home:
        (home / "searches").mkdir()
        (home / "searches" / "ledger.jsonl").write_text('{"n": 1}\n')
        (home / "model").write_bytes(bytes(200_000))
    monkeypatch.setenv("HPSEARCH_CACHE", str(tmp_path / "elsewhere"))
    with open_home(address, access="read") as home:
        assert (home / "searches" / "ledger.jsonl").read_text() == '{"n": 1}\n'
        assert (home / "model").read_bytes() == bytes(200_000)


def test_a_home_moves_by_its_address_alone_and_credentials_stay_out_of_it(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    write_and_read("s3://lab/moves", tmp_path, monkeypatch)
    store = ObjectStore("s3://lab/moves")
    kept = [store.get(name) for kind in ("commits", "snapshots", "leases", "probes", "blobs")
            for name in store.names(kind)]  # fmt: skip
    kept += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    assert not any(ADMIN[1].encode() in content for content in kept)


def test_throttled_requests_are_repeated_and_a_lost_answer_is_recognized(
    s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
    s3_proxy.refuse += [503, 429, 503]
    write_and_read("s3://lab/throttled", tmp_path, monkeypatch)
    assert len([x for x in s3_proxy.requests if "commits" in x]) >= 3
    store = ObjectStore("s3://lab/throttled")
    s3_proxy.refuse.append(0)  # the object is written, and the answer lost
    assert store.create("once", b"1")
    assert not store.create("once", b"2")


def test_a_large_file_over_a_slow_line_takes_its_time(
    s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
    monkeypatch.setattr(object_store, "READ_TIMEOUT_S", 1)
    store = ObjectStore("s3://lab/slow", retry_for_s=20)
    store.put("large", bytes(2**20))
    s3_proxy.piece_pause_s = 0.25  # longer in all than without a byte
    assert store.get("large") == bytes(2**20)


def test_refusals_are_one_sentence_with_exit_code_2(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    with pytest.raises(UserError, match="there is no bucket") as hit, open_home("s3://nothere/x"):
        raise AssertionError
    assert hit.value.code == "no-such-bucket"
    use(monkeypatch, *READER)
    with pytest.raises(UserError, match="refuses these credentials"), open_home("s3://lab/ro"):
        raise AssertionError
    use(monkeypatch, "wrong", "wrong")
    with pytest.raises(UserError, match="refuses these credentials"), open_home("s3://lab/ro"):
        raise AssertionError
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="no credentials"), open_home("s3://lab/ro"):
        raise AssertionError
    use(monkeypatch, "wrong", "wrong")
    ran = processes.run("list", "--home", "s3://lab/ro", AWS_ACCESS_KEY_ID="wrong")
    assert ran.returncode == 2
    assert len(ran.stderr.strip().splitlines()) == 1


def test_a_search_on_it_can_be_listed_and_is_named_by_its_address(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    ran = processes.run("list", "--home", "s3://lab/empty")
    assert ran.returncode == 0
    assert "no search in s3://lab/empty" in ran.stdout


SPACE = """
from hpsearch.config import Adam, TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=900)

SEARCH = Search(suggest=suggest, budget=900, report_every=100, trials=4,
                baseline=TrialConfig(patches=900))
"""


def test_commands_of_another_machine_show_and_steer_a_search_that_runs(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: PatchStore
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    mirror = Mirror(tmp_path / "driver", ObjectStore("s3://lab/steered"))

    def command(*words: str) -> str:
        done = CliRunner().invoke(app, [*words, "--home", "s3://lab/steered"])
        if isinstance(done.exception, UserError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    with HomeSession(mirror).writing():
        context = plan(mirror.folder, tiny, SPACE, trials=4)
        log_trial(context, 0, "completed", 0.5)
        log_trial(context, 1, "running")
        with context.lock():
            mirror.push()
            assert command("status", "far").startswith("far: running")
            command("try", "far", '{"lr": 0.005}')
            command("pause", "far")
            command("stop", "far", "--trial", "001")
            command("concurrency", "far", "2")
            command("note", "far", "odd", "--trial", "001")
            with pytest.raises(UserError, match="in use by process"):
                command("extend", "far", "--trials", "3")
            mirror.push()
            asked = SearchRequests(context.event_log)
            assert (asked.paused, asked.max_concurrent_trials) == (True, 2)
            assert asked.stopped_trials == {"001"}
            assert [point.params for point in asked.points] == [{"lr": 0.005}]
            assert "paused" in command("list")
            assert "note 001: odd" in command("show", "far")
            assert "started again" in command("resume", "far")
            with pytest.raises(UserError, match="is running"):
                command("archive", "far", "--output", str(tmp_path / "far.tar.gz"))
            mirror.push()
            assert not SearchRequests(context.event_log).paused
            with pytest.raises(UserError, match="in use by process"):
                command("resume", "far")
    assert command("status", "far").startswith("far: interrupted")
    monkeypatch.chdir(tmp_path)
    command("archive", "far")
    assert (tmp_path / "far.tar.gz").exists()


def test_options_that_need_no_home_leave_it_alone_in_any_order(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("HPSEARCH_CACHE", str(tmp_path / "cache"))
    runner, home = CliRunner(), ("--home", "s3://lab/untouched")
    for words in (("stop", "far", *home, "--slurm"), ("resume", "far", *home, "--slurm")):
        done = runner.invoke(app, words)
        assert isinstance(done.exception, UserError)
        assert done.exception.code == "no-such-search", "Slurm is asked, and not the home"
    runner.invoke(app, ["stop", "far", *home, "--address", "http://127.0.0.1:9"])
    (tmp_path / "space.py").write_text(SPACE)
    runner.invoke(app, ["search", str(tmp_path / "space.py"), *home, "--dry-run"])
    assert not ObjectStore("s3://lab/untouched").names("commits")


@pytest.mark.chaos
def test_a_server_killed_and_restarted_costs_no_commit(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import threading

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    store = ObjectStore("s3://lab/killed")
    session = HomeSession(Mirror(tmp_path / "home", store))
    with session.writing():
        log = tmp_path / "home" / "ledger.jsonl"
        for n in range(20):
            with log.open("a") as file:
                file.write(f"{n}\n")
            if n == 10:
                s3_server.kill()
                threading.Timer(3, s3_server.start).start()
        (tmp_path / "home" / "model").write_bytes(bytes(100_000))
    other = Mirror(tmp_path / "other", ObjectStore("s3://lab/killed"))
    HomeSession(other).refresh()
    assert (tmp_path / "other" / "ledger.jsonl").read_text() == log.read_text()
