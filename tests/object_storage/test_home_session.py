"""Commands on a home in an object store: who may write, and how others see and steer what runs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")

from obstore.store import MemoryStore

from hpsearch.atomic_files import try_lock
from hpsearch.errors import UserError
from hpsearch.execution import slurm
from hpsearch.object_storage import commit_log, home_session, inbox, lease
from hpsearch.object_storage.home_session import HomeSession
from hpsearch.object_storage.inbox import forward_request
from hpsearch.object_storage.lease import is_locked_elsewhere, require_driver
from hpsearch.object_storage.mirror import Mirror
from hpsearch.object_storage.object_store import ObjectStore

ADDRESS = "s3://lab/runs"
LOG = "searches/q/ledger.jsonl"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """Objects at the address, for whoever opens it."""
    found = MemoryStore()
    monkeypatch.setattr(inbox, "ObjectStore", lambda address: ObjectStore(address, found))
    monkeypatch.setattr(home_session, "PASS_S", 3_600.0)
    return found


@pytest.fixture
def session(memory: MemoryStore, tmp_path: Path) -> Callable[..., HomeSession]:
    """Work in a folder of its own, as on another machine."""

    def opened(name: str, **options: Any) -> HomeSession:
        return HomeSession(Mirror(tmp_path / name, ObjectStore(ADDRESS, memory, 0), **options))

    return opened


Session = Callable[..., HomeSession]


def begin_log(session: HomeSession) -> Path:
    """Event log of a search of the driver."""
    log = session.mirror.folder / LOG
    log.parent.mkdir(parents=True)
    log.write_text('{"event": "search"}\n')
    session.mirror.push()
    return log


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_another_machine_sees_the_locks_of_a_driver_until_it_ends(session: Session) -> None:
    here, there = session("here"), session("there")
    home = there.mirror.folder
    with here.writing():
        log = begin_log(here)
        held = try_lock(log.with_name("lock"))
        assert held is not None
        with held:
            here.mirror.push()
            there.refresh()
            assert is_locked_elsewhere(home, (home / LOG).with_name("lock"))
            assert not is_locked_elsewhere(home, home / "searches" / "other" / "lock")
            with pytest.raises(UserError, match="in use by process") as caught:
                require_driver(home)
            assert caught.value.code == "home-in-use"
        here.mirror.push()
        there.refresh()
        assert not is_locked_elsewhere(home, (home / LOG).with_name("lock"))
    there.refresh()
    with pytest.raises(UserError, match="would not reach it") as caught:
        require_driver(home)
    assert caught.value.code == "read-only-home"
    with there.writing():
        require_driver(home)


def test_a_request_reaches_the_log_once_whatever_is_lost(session: Session) -> None:
    here, there = session("here"), session("there")
    with here.writing():
        log = begin_log(here)
        with there.steering():
            assert forward_request(there.mirror.folder / LOG, {"action": "pause", "text": "a"})
        here.mirror.take_requests()  # and the driver dies before it deletes the request
        here.mirror.push()
        here.mirror.push()
        assert [event["event"] for event in lines(log)] == ["search", "request"]
        assert lines(log)[1]["action"] == "pause"
        assert not here.mirror.log.store.names("requests")
        with HomeSession(Mirror(here.mirror.folder, here.mirror.log.store)).steering():
            assert not forward_request(log, {"action": "pause"}), "a command beside it appends it"
    there.refresh()
    assert lines(there.mirror.folder / LOG) == lines(log)


def test_a_request_waits_for_the_next_driver_and_one_for_nothing_is_dropped(
    session: Session,
) -> None:
    here, there = session("here"), session("there")
    with here.writing():
        begin_log(here)
        with there.steering():
            forward_request(there.mirror.folder / LOG, {"action": "note", "text": "late"})
    store = here.mirror.log.store
    for name, request in enumerate(
        (
            b"no JSON",
            b'{"file": "../../x/ledger.jsonl", "event": {"event": "request", "request": "1"}}',
            b'{"file": "searches/q/search.json", "event": {"event": "request", "request": "2"}}',
            b'{"file": "searches/q/ledger.jsonl", "event": {"event": "report", "request": "3"}}',
            b'{"file": "searches/x/ledger.jsonl", "event": {"event": "request", "request": "4"}}',
        )
    ):
        store.put(f"requests/{name}", request)
    third = session("third")
    with third.writing():
        assert lines(third.mirror.folder / LOG)[-1]["text"] == "late"
        third.mirror.push()
        assert not store.names("requests")
    assert [event["event"] for event in lines(third.mirror.folder / LOG)] == ["search", "request"]


def test_steering_an_idle_home_writes_to_it_without_its_checkpoints(session: Session) -> None:
    here, there = session("here"), session("there", light=True)
    checkpoint = "searches/q/trials/000/trial.pt"
    with here.writing():
        begin_log(here)
        for name in (checkpoint, "data/mini.arrow"):
            (here.mirror.folder / name).parent.mkdir(parents=True)
            (here.mirror.folder / name).write_bytes(b"x" * 100)
    stale = there.mirror.folder / checkpoint
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier time")
    with there.steering():
        log = there.mirror.folder / LOG
        assert not forward_request(log, {"action": "note"})
        with log.open("a") as file:
            file.write('{"event": "request"}\n')
    assert not (there.mirror.folder / "data").exists()
    here.refresh()
    assert len(lines(here.mirror.folder / LOG)) == 2
    assert (here.mirror.folder / checkpoint).read_bytes() == b"x" * 100
    assert (here.mirror.folder / "data" / "mini.arrow").exists()
    whole = HomeSession(Mirror(there.mirror.folder, there.mirror.log.store))
    whole.refresh()
    assert stale.read_bytes() == b"x" * 100


def test_a_folder_that_is_read_follows_the_driver(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = session("here"), session("there")
    with here.writing():
        log = begin_log(here)
        monkeypatch.setattr(home_session, "PASS_S", 0.02)
        with there.reading():
            log.write_text(log.read_text() + '{"event": "start"}\n')
            here.mirror.push()
            until = time.monotonic() + 60
            while lines(there.mirror.folder / LOG) != lines(log):
                assert time.monotonic() < until
                time.sleep(0.02)


def test_a_lease_ends_by_the_clock_of_the_server(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's clock is a day ahead; then the lease of a dead driver has ended."""
    here, there = session("here"), session("there")
    here.mirror.pull()
    here.mirror.begin()
    monkeypatch.setattr(lease.time, "time", lambda real=time.time: real() + 86_400)
    monkeypatch.setattr(lease, "machine_id", lambda: "another")
    with pytest.raises(UserError) as caught, there.writing():
        raise AssertionError
    assert caught.value.code == "home-in-use"
    monkeypatch.setattr(lease, "LEASE_S", 0.0)
    with there.writing():
        pass


def test_a_process_of_a_container_with_this_host_name_is_not_taken_for_a_dead_one(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = session("here"), session("there")
    here.mirror.pull()
    monkeypatch.setattr(commit_log, "new_holder", lambda *args: {
        **lease.new_holder(*args), "pid": 2**22 + 1, "machine": "of the container",
    })  # fmt: skip
    here.mirror.begin()
    with pytest.raises(UserError) as caught, there.writing():
        raise AssertionError
    assert caught.value.code == "home-in-use"


def test_of_two_that_begin_at_once_one_is_refused(session: Session) -> None:
    here, there = session("here").mirror, session("there").mirror
    for mirror in (here, there):
        mirror.pull()
    here.begin()
    with pytest.raises(UserError, match="has begun to write") as caught:
        there.begin()
    assert caught.value.code == "home-in-use"
    here.finish()
    assert here.log.state.holder is None


def test_a_command_that_reads_does_not_keep_another_from_writing(session: Session) -> None:
    here, there = session("here"), session("there")
    with here.writing():
        begin_log(here)
    again = session("there")
    with there.reading(), again.writing():
        there.refresh()
        assert (again.mirror.folder / LOG).exists()


def test_a_slurm_job_that_starts_again_waits_for_the_lease_of_its_lost_driver(
    memory: MemoryStore, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "ObjectStore", lambda address: ObjectStore(address, memory, 0))
    assert not slurm.is_begun(ADDRESS, "q")
    driver = session("node 1")
    driver.mirror.log.load()
    driver.mirror.pull()
    driver.mirror.begin()
    begin_log(driver).with_name("search.json").write_text("{}")
    driver.mirror.push()
    waits = list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        monkeypatch.setattr(lease, "LEASE_S", 0.0)  # it ends meanwhile

    monkeypatch.setattr(slurm.time, "sleep", sleep)
    with pytest.raises(UserError, match="in use by process") as caught:
        slurm.is_begun(ADDRESS, "q", wait_s=-1)
    assert caught.value.code == "home-in-use"
    assert slurm.is_begun(ADDRESS, "q")
    assert waits == [slurm.LEASE_POLL_S]
    assert not slurm.is_begun(ADDRESS, "r")
