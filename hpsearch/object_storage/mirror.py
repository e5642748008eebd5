"""Local folder that mirrors a home in an object store: what is fetched, and what is committed.

Commands work on the folder as on any home; ``home_session.py`` decides when it is brought up to
date, and when its changes are committed.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpsearch.atomic_files import write_atomic
from hpsearch.locations import MIRROR_FILE
from hpsearch.object_storage.commit_log import (
    INLINE_BYTES,
    READ_ATTEMPTS,
    CommitLog,
    DamagedHomeError,
)
from hpsearch.object_storage.inbox import take_requests
from hpsearch.object_storage.lease import held_locks
from hpsearch.object_storage.mirrored_files import (
    APPENDED,
    CHECKPOINTS,
    LARGE,
    LAST,
    Piece,
    Stamp,
    ends_with,
    holds,
    is_event_log,
    mirrored_files,
    stamp_of,
    starts_with,
)
from hpsearch.object_storage.object_store import ObjectStore

VERIFIED_FILE, LOST_FOLDER = ".mirror.verified.json", ".mirror.lost"
"""Stamps of files whose digest was checked; what an overtaken driver could not commit."""
COMMIT_FILES, COMMIT_BYTES = 256, 64 << 20
"""Most files of one commit, and bytes after which no more are added."""
Changes = dict[str, tuple[int, bytes] | None]
logger = logging.getLogger(__name__)


class Mirror:
    """Folder and commit log of one home.

    Args:
        folder: the local folder.
        store: the objects.
        light: whether checkpoints, patch stores and artifacts are left out.
    """

    def __init__(self, folder: Path, store: ObjectStore, *, light: bool = False) -> None:
        self.folder, self.log, self.light = folder, CommitLog(store), light
        self._is_light = light
        """The same, but False for a folder with changes that were not committed."""
        self._driver: str | None = None
        """Driver whose latest changes may lie in the folder alone."""
        self._seen: dict[str, Stamp] = {}
        self._locks = list[str]()

    def pull(self) -> None:
        """Update the folder to the state of the log; one that is ahead of it keeps what it has.

        Raises:
            UserError: if the store does not answer or its content is damaged.
        """
        for _ in range(READ_ATTEMPTS):
            try:
                return self._pull()
            except FileNotFoundError:
                continue  # replaced, and deleted by a compaction, just now
        raise DamagedHomeError(
            f"{self.log.store.address} changes faster than it is read; repeat the command"
        )

    def _pull(self) -> None:
        state, before = self.log.load(), self._read_json(MIRROR_FILE)
        driver = before.get("driver")
        # no other driver has written since, so what differs here is newer
        ahead = driver is not None and driver == (state.holder or {}).get("id")
        self._driver, self._is_light = driver if ahead else None, self.light and not ahead
        if not ahead:
            for name in set(before.get("files", ())) - state.files.keys():
                (self.folder / name).unlink(missing_ok=True)
            self._set_aside_strays()
        verified = self._read_json(VERIFIED_FILE)
        for name, pieces in state.files.items():
            if not self._is_left_out(name):
                self._fetch(name, pieces, ahead=ahead, verified=verified.get(name))
        self._write_record(self.log.read_holder())
        self._write_verified()

    def _is_left_out(self, name: str) -> bool:
        return self._is_light and LARGE.fullmatch(name) is not None

    def _set_aside_strays(self) -> None:
        """Move away what a driver wrote into searches, and could not commit before another did."""
        known = self.log.state.files
        for name, path in list(mirrored_files(self.folder)):
            if name.startswith("searches/") and name not in known and not self._is_left_out(name):
                target = self.folder / LOST_FOLDER / name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
                logger.warning("%s was never committed; it now lies in %s", name, target)

    def _fetch(self, name: str, pieces: list[Piece], *, ahead: bool, verified: Any) -> None:
        path, is_appended = self.folder / name, name.endswith(APPENDED)
        if path.is_file():
            stamp = stamp_of(path)
            if verified == [*stamp, pieces[0]["sha256"]] or holds(path, pieces):
                self._seen[name] = stamp
                return
            if ahead and (not is_appended or starts_with(path, pieces)):
                return
        content, is_whole = self._content(name, pieces)
        write_atomic(path, content, private=True)
        if is_whole:
            self._seen[name] = stamp_of(path)

    def _content(self, name: str, pieces: list[Piece]) -> tuple[bytes, bool]:
        """Content of a file, and whether it is whole; a damaged checkpoint is empty.

        A trial with a damaged checkpoint resumes from the one before.

        Raises:
            DamagedHomeError: if another file is damaged.
            FileNotFoundError: if it was replaced just now.
        """
        try:
            return b"".join(self.log.content(piece) for piece in pieces), True
        except FileNotFoundError as error:
            if self.log.load().files.get(name) != pieces:
                raise
            damage = DamagedHomeError(
                f"{name} of {self.log.store.address} is missing; restore its object from a copy"
            )
            damage.__cause__ = error
        except DamagedHomeError as error:
            damage = error
        if CHECKPOINTS.fullmatch(name) is None:
            raise damage
        logger.warning("%s; its trial resumes from the checkpoint before", damage)
        return b"", False

    def begin(self) -> None:
        """Take the lease; the folder is up to date.

        Raises:
            UserError: if another driver holds it, or the server ignores If-None-Match.
        """
        self.log.acquire()
        self._driver = None if self._is_light else self.log.id
        self._write_record()

    def finish(self) -> None:
        """Commit the rest and give the lease back.

        Raises:
            UserError: if the store does not answer, or another driver has taken over.
        """
        self.push()
        self.log.release()
        self._driver = None
        self._write_record()
        self._write_verified()

    def take_requests(self) -> list[str]:
        """Append the requests of other machines to the event logs; names of their objects.

        Raises:
            UserError: if the store does not answer.
        """
        return take_requests(self.log.store, self.folder, LAST)

    def push(self) -> None:
        """Commit what has changed in the folder, and the requests of other machines.

        The event log is measured first and committed last, so that the store never holds an event
        without the checkpoint and the trial of the study that it mentions.

        Raises:
            UserError: if the store does not answer, or another driver has taken over.
        """
        taken = self.take_requests()
        found = {n: p for n, p in mirrored_files(self.folder) if not self._is_left_out(n)}
        logs = {name: path.stat().st_size for name, path in found.items() if is_event_log(name)}
        changes: Changes = {}
        stamps: dict[str, Stamp] = {}
        for name, path in found.items():
            if name in logs:
                continue
            with suppress(FileNotFoundError):  # replaced or removed just now
                self._add_change(name, path, changes, stamps)
            size = sum(len(change[1]) for change in changes.values() if change is not None)
            if len(changes) >= COMMIT_FILES or size >= COMMIT_BYTES:
                self._commit(changes, stamps)
        for name, size in logs.items():
            self._add_appended(name, found[name], size, changes)
        gone = self.log.state.files.keys() - found.keys()
        changes |= {name: None for name in gone if not self._is_left_out(name)}
        self._commit(changes, stamps)
        self.log.store.delete(taken)
        if held_locks(self.folder) != self._locks:
            self.renew()

    def _add_change(
        self, name: str, path: Path, changes: Changes, stamps: dict[str, Stamp]
    ) -> None:
        stamp = stamp_of(path)
        if self._seen.get(name) == stamp:
            return
        if name.endswith(APPENDED):
            self._add_appended(name, path, stamp[0], changes)
        else:
            changes[name] = (0, path.read_bytes())
        stamps[name] = stamp

    def _add_appended(self, name: str, path: Path, size: int, changes: Changes) -> None:
        """Add the new whole lines of a file that only grows, up to byte ``size``.

        A file that was replaced, and so is shorter or lacks its latest piece, is added whole.
        """
        start = self.log.state.size(name)
        if size < start or not ends_with(path, self.log.state.files.get(name, ()), start):
            start = 0
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(size - start)
        whole = content[: content.rfind(b"\n") + 1]
        if whole:
            changes[name] = (start, whole)

    def _commit(self, changes: Changes, stamps: dict[str, Stamp]) -> None:
        if changes:
            self.log.commit(changes)
            self._write_record()
        self._seen |= stamps
        changes.clear()
        stamps.clear()

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.folder / name).read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _write_record(self, holder: Mapping[str, Any] | None = None) -> None:
        state = self.log.state
        record = {
            "address": self.log.store.address,
            "number": state.number,
            "driver": self._driver,
            "holder": holder,
            "files": sorted(state.files),
        }
        write_atomic(self.folder / MIRROR_FILE, json.dumps(record), private=True)

    def _write_verified(self) -> None:
        """Write the stamps of large files whose digest is known, so that it is not made again."""
        known = {
            name: [*stamp, pieces[0]["sha256"]]
            for name, stamp in self._seen.items()
            if len(pieces := self.log.state.files.get(name, ())) == 1 and stamp[0] > INLINE_BYTES
        }
        write_atomic(self.folder / VERIFIED_FILE, json.dumps(known), private=True)

    def renew(self) -> None:
        """Extend the lease, which names the locks that are held.

        Raises:
            UserError: if the store does not answer, or another driver has taken over.
        """
        self._locks = held_locks(self.folder)
        self.log.renew(self._locks)
