"""Local folder that mirrors a home in an object store.

Commands work on the folder as on any home. A command that reads brings it up to date first. One
that writes takes the lease, and a thread commits what has changed every ``PASS_S`` seconds; the
last pass is made, and the lease given back, before the command reports its end.
"""

import hashlib
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hpsearch.atomic_files import make_private, try_lock, write_atomic
from hpsearch.errors import UserError
from hpsearch.locations import MIRROR_FILE, is_remote
from hpsearch.object_storage.commit_log import CommitLog, LeaseLostError, Piece
from hpsearch.object_storage.object_store import ObjectStore, StoreUnavailableError

CACHE_ENV = "HPSEARCH_CACHE"
PASS_S = 5.0
"""Pause between two passes; what a driver's disk loses at most, while the store answers."""
RENEW_S = 20.0
APPENDED = (".jsonl", ".journal", ".log")
"""Ends of names of files that only grow; their new whole lines are committed."""
LOCAL_NAMES = frozenset((MIRROR_FILE, ".mirror.lock", "lock", "attempts", "mlartifacts"))
"""Files and folders of this machine alone; MLflow's are rebuilt by ``hpsearch sync``."""
LOCAL_ENDS = (".part", ".probe", ".lock", ".db", ".db-wal", ".db-shm", ".db-journal", ".draft")
COMMIT_FILES = 256
"""Most files of one commit."""
LAST = "ledger.jsonl"
"""Event log: committed after everything that its events mention."""
logger = logging.getLogger(__name__)


def cache_folder(address: str) -> Path:
    """Folder on this machine that mirrors the home at an address."""
    root = os.environ.get(CACHE_ENV) or Path.home() / ".cache" / "hpsearch"
    return Path(root) / "homes" / hashlib.sha256(address.encode()).hexdigest()[:16]


@contextmanager
def open_home(address: str | Path, *, read_only: bool = False) -> Iterator[Path]:
    """Local folder of a home; an address in an object store is mirrored while the block runs.

    Args:
        address: a folder, which is returned as it is, or ``s3://BUCKET/PREFIX``.
        read_only: whether to bring the folder up to date only, without the lease.

    Raises:
        UserError: if the store refuses, does not answer, or another driver holds the lease.

    Example:
        >>> with open_home("runs") as home:
        ...     home
        PosixPath('runs')
    """
    if not is_remote(address):
        yield Path(address)
        return
    store = ObjectStore(str(address))
    mirror = Mirror(cache_folder(store.address), store)
    if read_only:
        mirror.refresh()
        yield mirror.folder
        return
    with mirror.writing():
        yield mirror.folder


class Mirror:
    """Folder and commit log of one home.

    Args:
        folder: the local folder.
        store: the objects.
    """

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self.folder, self.log = folder, CommitLog(store)
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._stop, self._failure = threading.Event(), list[UserError]()

    def refresh(self) -> None:
        """Bring the folder up to date; while a driver of this machine writes there, it already is.

        Raises:
            UserError: if the store does not answer or its content is damaged.
        """
        make_private(self.folder)
        lock = try_lock(self.folder / ".mirror.lock")
        if lock is None:
            return
        with lock:
            self.pull()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lease, and commit what changes in the folder, until the block ends.

        Raises:
            UserError: if another process holds the home, or something could not be committed.
        """
        make_private(self.folder)
        lock = try_lock(self.folder / ".mirror.lock")
        if lock is None:
            raise UserError(
                f"{self.log.store.address} is in use by another process of this machine; wait for "
                "its end, or stop it with Ctrl-C there",
                code="home-in-use",
            )
        with lock:
            self.pull()
            self.log.acquire()
            self._write_record()
            threads = [
                threading.Thread(target=self._repeat, args=work, daemon=True)
                for work in ((self.push, PASS_S), (self.log.renew, RENEW_S))
            ]
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self._stop.set()
                for thread in threads:
                    thread.join()
                self._finish()

    def _finish(self) -> None:
        """Commit the rest and give the lease back.

        Raises:
            UserError: if that failed; the folder then holds what is missing.
        """
        for failure in self._failure:
            raise failure
        try:
            self.push()
            self.log.release()
            self._write_record()
        except StoreUnavailableError as error:
            raise StoreUnavailableError(
                f"{error}; what is not there yet lies in {self.folder}"
            ) from error

    def _repeat(self, work: Callable[[], None], pause: float) -> None:
        """Repeat work until the end; a driver that was overtaken is asked to save and end."""
        while not self._stop.wait(pause):
            try:
                work()
            except LeaseLostError as error:
                self._failure.append(error)
                logger.error("%s", error)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except StoreUnavailableError as error:
                logger.warning("%s", error)
            except OSError as error:
                logger.warning("the home could not be mirrored: %s", error)

    def pull(self) -> None:
        """Update the folder to the state of the log; one that is ahead of it keeps what it has.

        Raises:
            UserError: if the store does not answer or its content is damaged.
        """
        state, before = self.log.load(), self._record()
        ahead = before.get("number") == state.number and before.get("driver") == _holder(
            state.holder
        )  # no other driver has written since, so what differs here is newer
        gone = [] if ahead else before.get("files", ())
        for name in gone if isinstance(gone, list) else ():
            if name not in state.files:
                (self.folder / name).unlink(missing_ok=True)
        for name, pieces in state.files.items():
            self._fetch(name, pieces, ahead=ahead)
        self._write_record()
        for name, pieces in state.files.items():
            path = self.folder / name
            if path.is_file() and not name.endswith(APPENDED) and _holds(path, pieces):
                self._seen[name] = _stamp(path)

    def _fetch(self, name: str, pieces: list[Piece], *, ahead: bool) -> None:
        path = self.folder / name
        if path.is_file() and ahead and (not name.endswith(APPENDED) or _starts_with(path, pieces)):
            return
        if path.is_file() and _holds(path, pieces):
            return
        write_atomic(path, b"".join(self.log.content(piece) for piece in pieces), private=True)

    def push(self) -> None:
        """Commit what has changed in the folder.

        The event log is measured first and committed last, so that the store never holds an event
        without the checkpoint and the trial of the study that it mentions.

        Raises:
            UserError: if the store does not answer, or another driver has taken over.
        """
        found = self._local()
        logs = {name: path.stat().st_size for name, path in found.items() if _is_event_log(name)}
        changes: dict[str, tuple[int, bytes] | None] = {}
        stamps: dict[str, tuple[int, int, int]] = {}
        for name, path in found.items():
            if name in logs:
                continue
            with suppress(FileNotFoundError):  # replaced or removed just now
                self._add_change(name, path, changes, stamps)
            if len(changes) >= COMMIT_FILES:
                self._commit(changes, stamps)
        for name, size in logs.items():
            self._add_appended(name, found[name], size, changes)
        changes |= {name: None for name in self.log.state.files.keys() - found.keys()}
        self._commit(changes, stamps)

    def _add_change(
        self,
        name: str,
        path: Path,
        changes: dict[str, tuple[int, bytes] | None],
        stamps: dict[str, tuple[int, int, int]],
    ) -> None:
        if name.endswith(APPENDED):
            return self._add_appended(name, path, path.stat().st_size, changes)
        stamp = _stamp(path)
        if self._seen.get(name) != stamp:
            changes[name], stamps[name] = (0, path.read_bytes()), stamp
        return None

    def _add_appended(
        self, name: str, path: Path, size: int, changes: dict[str, tuple[int, bytes] | None]
    ) -> None:
        """Add the new whole lines of a file that only grows, up to byte ``size``."""
        start = self.log.state.size(name)
        if size < start:
            start = 0  # replaced by a shorter one
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(size - start)
        whole = content[: content.rfind(b"\n") + 1]
        if whole:
            changes[name] = (start, whole)

    def _commit(
        self,
        changes: dict[str, tuple[int, bytes] | None],
        stamps: dict[str, tuple[int, int, int]],
    ) -> None:
        if changes:
            self.log.commit(changes)
            self._seen |= stamps
            self._write_record()
        changes.clear()
        stamps.clear()

    def _local(self) -> Mapping[str, Path]:
        """Files of the folder that belong to the home, by their path in it."""
        found: dict[str, Path] = {}
        for root, folders, names in os.walk(self.folder):
            folders[:] = [x for x in folders if x not in LOCAL_NAMES and not x.endswith(LOCAL_ENDS)]
            for name in names:
                if name not in LOCAL_NAMES and not name.endswith(LOCAL_ENDS):
                    path = Path(root, name)
                    found[path.relative_to(self.folder).as_posix()] = path
        return found

    def _record(self) -> dict[str, object]:
        try:
            return json.loads((self.folder / MIRROR_FILE).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _write_record(self) -> None:
        state = self.log.state
        record = {
            "address": self.log.store.address,
            "number": state.number,
            "driver": _holder(state.holder),
            "files": sorted(state.files),
        }
        write_atomic(self.folder / MIRROR_FILE, json.dumps(record), private=True)


def _holder(holder: Mapping[str, object] | None) -> object:
    return None if holder is None else holder["id"]


def _is_event_log(name: str) -> bool:
    return name.rpartition("/")[2] == LAST


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _holds(path: Path, pieces: list[Piece]) -> bool:
    """Return True if a file consists of exactly these pieces."""
    size = sum(piece["size"] for piece in pieces)
    return path.stat().st_size == size and _starts_with(path, pieces)


def _starts_with(path: Path, pieces: list[Piece]) -> bool:
    with path.open("rb") as file:
        return all(
            hashlib.sha256(file.read(piece["size"])).hexdigest() == piece["sha256"]
            for piece in pieces
        )
