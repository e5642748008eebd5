"""Homes on a real S3 server: conditions, throttling, lost answers, refusals, kill and restart."""

from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")

from hpsearch.errors import UserError
from hpsearch.object_storage.home_session import HomeSession, open_home
from hpsearch.object_storage.mirror import Mirror
from hpsearch.object_storage.object_store import ObjectStore
from tests import processes
from tests.object_storage.conftest import ADMIN, READER, Proxy, S3Server


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
    assert not any(b"secret" in content for content in kept)


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
