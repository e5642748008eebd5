"""Homes in an object store in memory: crashes between requests, leases, overtaken drivers."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("obstore", reason="the extra s3 is not installed")

from obstore.store import MemoryStore

from hpsearch.errors import UserError
from hpsearch.locations import home_address
from hpsearch.object_storage import commit_log
from hpsearch.object_storage.commit_log import CommitLog, HomeState, LeaseLostError, piece_of
from hpsearch.object_storage.home_session import HomeSession
from hpsearch.object_storage.mirror import Mirror
from hpsearch.object_storage.mirrored_files import mirrored_files
from hpsearch.object_storage.object_store import ObjectStore, StoreUnavailableError

ADDRESS = "s3://lab/runs"
LOG = "searches/q/ledger.jsonl"


class Crash(BaseException):
    """The process was killed."""


class MortalStore(ObjectStore):
    """Store whose client dies at its n-th writing request, before or after the server wrote."""

    def __init__(self, memory: MemoryStore, lives: int = 10**9, *, written: bool = False) -> None:
        super().__init__(ADDRESS, memory, retry_for_s=0)
        self.lives, self.written = lives, written

    def _write(self, method: str, *args: Any) -> Any:
        self.lives -= 1
        if self.lives < 0:
            if self.written and self.lives == -1:
                getattr(super(), method)(*args)
            raise Crash
        return getattr(super(), method)(*args)

    def put(self, name: str, content: bytes) -> None:
        self._write("put", name, content)

    def create(self, name: str, content: bytes) -> bool:
        return self._write("create", name, content)

    def delete(self, names: Any) -> None:
        self._write("delete", names)


@pytest.fixture(autouse=True)
def _small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_log, "COMPACT_AFTER", 3)
    monkeypatch.setattr(commit_log, "KEPT_COMMITS", 4)
    monkeypatch.setattr(commit_log, "INLINE_BYTES", 20)
    monkeypatch.setattr(commit_log, "GARBAGE_AGE_S", -60.0)


def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="mirror-"))


def begun(memory: MemoryStore, here: Path, *crash: Any, **kind: Any) -> Mirror:
    mirror = Mirror(here, MortalStore(memory, *crash, **kind))
    mirror.pull()
    mirror.begin()
    return mirror


def expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all leases have ended, as a minute after the holder died."""
    monkeypatch.setattr(CommitLog, "refuse_held", lambda self: None)


def read_by_another(memory: MemoryStore) -> Path:
    other = folder()
    HomeSession(Mirror(other, MortalStore(memory))).refresh()
    return other


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=12),
    passes=st.sets(st.integers(0, 12)),
    lives=st.integers(0, 40),
    written=st.booleans(),
)
def test_a_reader_sees_a_prefix_whatever_request_the_driver_dies_at(
    pieces: list[bytes], passes: set[int], lives: int, written: bool
) -> None:
    memory, here = MemoryStore(), folder()
    log = here / LOG
    log.parent.mkdir(parents=True)
    try:
        mirror = begun(memory, here, lives, written=written)
        for n, piece in enumerate(pieces):
            (here / f"checkpoint-{n % 3}").write_text(str(n))
            with log.open("ab") as file:
                file.write(b"%d " % n + piece.hex().encode() + b"\n")
            if n in passes:
                mirror.push()
        mirror.push()
        mirror.log.release()
    except Crash:
        pass
    other = read_by_another(memory)
    local, remote = log.read_bytes() if log.exists() else b"", other / LOG
    seen = remote.read_bytes() if remote.exists() else b""
    assert local.startswith(seen)
    assert seen in (b"", local[: seen.rfind(b"\n") + 1])
    for line in seen.splitlines()[-3:]:  # what an event tells of was there before it
        number = int(line.split()[0])
        assert int((other / f"checkpoint-{number % 3}").read_text()) >= number
    if lives == 40:
        assert seen == local


def test_another_machine_resumes_and_the_overtaken_driver_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory, here, there = MemoryStore(), folder(), folder()
    first = begun(memory, here)
    (here / "a.jsonl").write_text("1\n")
    first.push()
    expire(monkeypatch)
    second = begun(memory, there)
    (here / "a.jsonl").write_text("1\n2\n")
    with pytest.raises(LeaseLostError, match="another driver has taken over"):
        first.push()
    (there / "a.jsonl").write_text("1\n3\n")
    second.push()
    assert (read_by_another(memory) / "a.jsonl").read_text() == "1\n3\n"


def test_a_driver_asleep_while_others_compacted_learns_that_it_was_overtaken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory, here, there = MemoryStore(), folder(), folder()
    first = begun(memory, here)
    expire(monkeypatch)
    second = begun(memory, there)
    for n in range(12):  # the number that the first would write next is free again
        (there / "n").write_text(str(n))
        second.push()
    assert second.log.store.names("commits")
    assert f"commits/{first.log.state.number + 1:012d}.json" not in second.log.store.names(
        "commits"
    )
    first.log._renewed -= 2 * commit_log.LEASE_S
    (here / "n").write_text("stale")
    with pytest.raises(LeaseLostError):
        first.push()


def test_a_second_driver_is_refused_by_name_and_a_dead_one_of_this_machine_is_not_waited_for() -> (
    None
):
    memory = MemoryStore()
    first = begun(memory, folder())
    with pytest.raises(UserError, match=f"process {os.getpid()} on {socket.gethostname()}") as hit:
        begun(memory, folder())
    assert hit.value.code == "home-in-use"
    holder = first.log.state.holder
    assert holder is not None
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], check=True,
                          capture_output=True)  # fmt: skip
    held = Mirror(folder(), MortalStore(memory))
    held.pull()
    assert held.log.state.holder is not None
    held.log.state.holder["pid"] = int(gone.stdout)
    held.log.acquire()


def test_a_server_that_ignores_conditions_is_refused() -> None:
    class Careless(ObjectStore):
        def create(self, name: str, content: bytes) -> bool:
            self.put(name, content)
            return True

    with pytest.raises(UserError, match="ignores If-None-Match") as hit:
        CommitLog(Careless(ADDRESS, MemoryStore())).acquire()
    assert hit.value.code == "no-conditional-writes"


def test_compaction_leaves_few_objects_and_the_same_files() -> None:
    memory, here = MemoryStore(), folder()
    mirror = begun(memory, here)
    for n in range(30):
        (here / "model").write_bytes(bytes([n]) * 100)
        with (here / "a.log").open("a") as file:
            file.write(f"line {n} of some length\n")
        mirror.push()
    names = mirror.log.store.names
    assert len(names("commits")) <= 4 + 3
    assert len(names("snapshots")) == 2
    assert len(names("blobs")) <= 6
    other = read_by_another(memory)
    for name in ("model", "a.log"):
        assert (other / name).read_bytes() == (here / name).read_bytes()


def test_what_was_not_committed_survives_on_the_same_machine_and_a_wiped_cache_is_refilled() -> (
    None
):
    memory, here = MemoryStore(), folder()
    first = begun(memory, here)
    for name in ("a.jsonl", "b.txt"):
        (here / name).write_text("1\n")
    first.push()
    (here / "a.jsonl").write_text("1\n2\n")  # and the driver is killed
    (here / "b.txt").unlink()
    again = Mirror(here, MortalStore(memory))
    again.pull()
    assert (here / "a.jsonl").read_text() == "1\n2\n"
    assert (here / "b.txt").read_text() == "1\n"
    (here / "a.jsonl").write_text("")  # a power cut took what the disk had not written
    again.pull()
    assert (here / "a.jsonl").read_text() == "1\n"


def test_files_of_this_machine_stay_whatever_searches_are_called_and_removals_follow() -> None:
    memory, here = MemoryStore(), folder()
    mirror = begun(memory, here)
    local = ("mlflow.db", "x.part", "searches/q/lock", "searches/q/tune/a", "searches/.q.removed/a",
             "searches/q/attempts/a", "mlartifacts/1/a")  # fmt: skip
    names = ("attempts", "tune", "lock", "x.db", "mlartifacts", "asked")
    kept = {f"searches/{name}/search.json" for name in names}
    for name in (*local, "search.json", "old", *kept):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("1")
    assert {name for name, _ in mirrored_files(here)} == {"search.json", "old", *kept}
    mirror.push()
    other = read_by_another(memory)
    assert (other / "old").exists()
    (here / "old").unlink()
    mirror.push()
    HomeSession(Mirror(other, MortalStore(memory))).refresh()
    found = {p.relative_to(other).as_posix() for p in other.rglob("*") if p.is_file()}
    assert {name for name in found if not name.startswith(".mirror.")} == {"search.json", *kept}
    assert home_address(other) == ADDRESS


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "", "a\\b"])
def test_a_commit_that_leads_out_of_the_home_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no path in a home"):
        HomeState().apply({"number": 1, "files": {name: piece_of(b"1")}})


def test_damaged_and_missing_content_is_refused() -> None:
    memory, here = MemoryStore(), folder()
    mirror = begun(memory, here)
    (here / "model").write_bytes(b"m" * 100)
    mirror.push()
    blob = next(iter(mirror.log.store.names("blobs")))
    mirror.log.store.put(blob, b"n" * 100)
    with pytest.raises(UserError, match="is damaged") as hit:
        read_by_another(memory)
    assert hit.value.code == "damaged-home"
    mirror.log.store.delete([blob])
    with pytest.raises(UserError, match="model of s3://lab/runs is missing") as hit:
        read_by_another(memory)
    assert hit.value.code == "damaged-home"


@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_checkpoint_is_empty_and_the_one_before_is_whole(missing: bool) -> None:
    memory, here = MemoryStore(), folder()
    mirror = begun(memory, here)
    trial = here / "searches" / "q" / "trials" / "000"
    trial.mkdir(parents=True)
    (trial / "trial.previous.pt").write_bytes(b"p" * 100)
    (trial / "trial.pt").write_bytes(b"l" * 100)
    mirror.push()
    pieces = mirror.log.state.files["searches/q/trials/000/trial.pt"]
    blob = f"blobs/{pieces[0]['sha256']}"
    mirror.log.store.delete([blob]) if missing else mirror.log.store.put(blob, b"n" * 100)
    found = read_by_another(memory) / "searches" / "q" / "trials" / "000"
    assert (found / "trial.pt").read_bytes() == b""
    assert (found / "trial.previous.pt").read_bytes() == b"p" * 100


def test_a_log_that_another_one_replaced_is_committed_whole() -> None:
    memory, here = MemoryStore(), folder()
    mirror = begun(memory, here)
    (here / "a.jsonl").write_text("1\n2\n")
    mirror.push()
    (here / "new").write_text("3\n4\n5\n")
    (here / "new").replace(here / "a.jsonl")
    mirror.push()
    assert (read_by_another(memory) / "a.jsonl").read_text() == "3\n4\n5\n"


def test_what_an_overtaken_driver_left_in_searches_does_not_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory, here = MemoryStore(), folder()
    first, checkpoint = begun(memory, here), "searches/q/trials/003/trial.pt"
    first.push()
    expire(monkeypatch)
    second = begun(memory, folder())
    (here / checkpoint).parent.mkdir(parents=True)
    (here / checkpoint).write_text("of a trial that nobody knows")
    with pytest.raises(LeaseLostError):
        first.push()
    second.finish()
    third = begun(memory, here)
    assert not (here / checkpoint).exists()
    assert (here / ".mirror.lost" / checkpoint).exists()
    third.push()
    assert checkpoint not in third.log.state.files


def test_an_unreachable_server_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "x")
    with pytest.raises(
        StoreUnavailableError, match=r"has not answered for 0 s \(connection refused\)"
    ):
        ObjectStore("s3://lab/runs", retry_for_s=0).names("commits")
