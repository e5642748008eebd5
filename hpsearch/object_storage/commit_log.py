"""Log of commits in an object store: what a home holds, written by one driver at a time.

A commit is one object, created only if there is none of its number (If-None-Match). So commits are
a total order, each is whole or absent, and a driver that was overtaken cannot add one. Short
appended pieces lie in the commit itself; other content lies in objects named by its SHA-256 digest,
written before the commit. Every ``COMPACT_AFTER`` commits the state is written as a snapshot.
"""

import base64
import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hpsearch.errors import UserError
from hpsearch.object_storage.lease import (
    LEASE_S,
    Holder,
    LeaseLostError,
    commit_name,
    in_use,
    is_dead,
    lease_name,
    new_holder,
    seconds_left,
)
from hpsearch.object_storage.mirrored_files import Piece
from hpsearch.object_storage.object_store import ObjectStore
from hpsearch.schema import KEY, SCHEMA_VERSION, refuse_newer

INLINE_BYTES = 64 * 1024
"""Largest piece that lies in a commit itself."""
COMPACT_AFTER, KEPT_COMMITS = 100, 200
"""Commits between two snapshots; commits that are kept before the latest snapshot."""
GARBAGE_AGE_S = 3600.0
"""Age at which an object that nothing refers to is deleted; a reader may still want it before."""
READ_ATTEMPTS = 5


class DamagedHomeError(UserError):
    """Missing, damaged or foreign content of a home in an object store."""

    default_code = "damaged-home"


@dataclass
class HomeState:
    """State of a home after the commits up to ``number``."""

    number: int = 0
    files: dict[str, list[Piece]] = field(default_factory=dict)
    holder: Holder | None = None
    """Process that holds the lease."""

    def apply(self, commit: dict[str, Any]) -> None:
        """Add the next commit.

        Raises:
            ValueError: if it is not the next, leads out of the home, or does not fit to a file.
        """
        if commit["number"] != self.number + 1:
            raise ValueError(f"commit {commit['number']} follows {self.number}")
        for name, piece in commit.get("files", {}).items():
            check_inside(name)
            if piece is None:
                self.files.pop(name, None)
            elif piece["from"] == 0:
                self.files[name] = [piece]
            elif piece["from"] == self.size(name):
                self.files[name] = [*self.files[name], piece]
            else:
                raise ValueError(f"a piece of {name} starts at {piece['from']}")
        if "holder" in commit:
            self.holder = commit["holder"]
        self.number += 1

    def size(self, name: str) -> int:
        """Bytes of a file; 0 if there is none."""
        return sum(piece["size"] for piece in self.files.get(name, ()))

    def blobs(self) -> set[str]:
        """Digests of the objects that the files refer to."""
        return {p["sha256"] for pieces in self.files.values() for p in pieces if "data" not in p}


def check_inside(name: str) -> None:
    """Refuse the name of a file that leads out of the home.

    Raises:
        ValueError: if it does.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise ValueError(f"{name[:60]!r} is no path in a home")


def piece_of(content: bytes, start: int = 0) -> Piece:
    """Description of a part of a file that starts at byte ``start``."""
    piece = {"from": start, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if len(content) <= INLINE_BYTES:
        piece["data"] = base64.b64encode(content).decode()
    return piece


class CommitLog:
    """Commits of one home, as a reader sees them, or as the driver that holds its lease.

    Args:
        store: the objects of the home.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store, self.state = store, HomeState()
        self.id, self._renewed, self._lease, self._known = "", 0.0, "", set[str]()

    def load(self) -> HomeState:
        """Read the present state; compaction by a driver at the same time is waited for.

        Raises:
            UserError: if commits are missing or damaged.
        """
        for attempt in range(READ_ATTEMPTS):
            try:
                self.state = self._read()
            except UserError:
                raise
            except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
                if attempt == READ_ATTEMPTS - 1:
                    raise DamagedHomeError(
                        f"{self.store.address} is no whole home of hpsearch ({error}); restore "
                        "its objects, or choose another --home"
                    ) from error
                time.sleep(0.1 * attempt)
            else:
                self._known = self.state.blobs()
                return self.state
        raise AssertionError

    def _read(self) -> HomeState:
        """Read the commits since the last time; all from the latest snapshot on if some are gone.

        After the latest one that is known, the number of each must follow, because numbers of
        commits that were deleted are free again.
        """
        found = {_number(name): name for name in self.store.names("commits")}
        snapshots, state = sorted(self.store.names("snapshots")), self.state
        newer = sorted(number for number in found if number >= state.number)
        if not newer or newer != list(range(state.number, state.number + len(newer))):
            state = self._snapshot(snapshots[-1]) if snapshots else HomeState()
        state = HomeState(state.number, dict(state.files), state.holder)
        for number in sorted(found):
            if number > state.number:
                state.apply(self._json(found[number]))
        return state

    def _snapshot(self, name: str) -> HomeState:
        found = self._json(name)
        for file in found["files"]:
            check_inside(file)
        return HomeState(found["number"], found["files"], found["holder"])

    def read_holder(self) -> Holder | None:
        """Process that holds the lease as of its last renewal, with the ``locks`` that it holds."""
        holder = self.state.holder
        if holder is None:
            return None
        with suppress(FileNotFoundError):
            lease = self._json(lease_name(holder))
            expires = max(holder["expires"], lease["expires"])
            return {**holder, "locks": lease.get("locks", ()), "expires": expires}
        return {**holder, "locks": ()}

    def _json(self, name: str) -> dict[str, Any]:
        found = json.loads(self.store.get(name))
        refuse_newer(found, Path(name))
        return found

    def content(self, piece: Piece) -> bytes:
        """Content of a piece.

        Raises:
            UserError: if its digest is another.
            FileNotFoundError: if it was deleted, because a newer commit replaced it.
        """
        inline = "data" in piece
        found = (
            base64.b64decode(piece["data"])
            if inline
            else self.store.get(f"blobs/{piece['sha256']}")
        )
        if hashlib.sha256(found).hexdigest() != piece["sha256"]:
            raise DamagedHomeError(
                f"object blobs/{piece['sha256'][:12]}… of {self.store.address} is damaged; "
                "restore it from a copy"
            )
        return found

    def acquire(self) -> None:
        """Take the lease, at the end of the log that ``load`` has read.

        Raises:
            UserError: if another driver holds it, or the server ignores If-None-Match.
        """
        self.refuse_held()
        self._check_conditional()
        self.id = uuid.uuid4().hex
        holder = new_holder(self.id, self.state.number + 1)
        self._renewed = _clock()
        if not self._create({"holder": holder}):
            raise UserError(
                f"another driver has begun to write to {self.store.address}; repeat the command "
                "when it has ended",
                code="home-in-use",
            )
        self._lease = lease_name(holder)

    def refuse_held(self) -> None:
        """Refuse a lease that another process holds.

        Raises:
            UserError: if one does.
        """
        holder = self.state.holder
        left = 0.0 if holder is None or is_dead(holder) else seconds_left(self.store, holder)
        if holder is not None and left > 0:
            raise in_use(self.store.address, holder, left)

    def _check_conditional(self) -> None:
        name = f"probes/{uuid.uuid4().hex}"
        self.store.create(name, b"1")
        second = self.store.create(name, b"2")
        self.store.delete([name])
        if second:
            raise UserError(
                f"the server of {self.store.address} ignores If-None-Match, so two drivers could "
                "overwrite each other; use one that knows it, or a --home on a disk",
                code="no-conditional-writes",
            )

    def renew(self, locks: Sequence[str] = ()) -> None:
        """Extend the lease, if another driver has not taken it; called by a heartbeat.

        Args:
            locks: lock files that are held, which it names.

        Raises:
            LeaseLostError: if one has.
        """
        self._check_not_overtaken()
        content = {KEY: SCHEMA_VERSION, "expires": time.time() + LEASE_S, "locks": list(locks)}
        began = _clock()
        self.store.put(self._lease, json.dumps(content).encode())
        self._renewed = began

    def commit(self, files: dict[str, tuple[int, bytes] | None]) -> None:
        """Write one commit; a file is given by where its new part starts, and None removes it.

        Raises:
            LeaseLostError: if another driver has taken over; nothing is then written.
        """
        self._check_not_overtaken()
        pieces = {n: None if x is None else piece_of(x[1], x[0]) for n, x in files.items()}
        for name, piece in pieces.items():
            given = files[name]
            if piece is None or given is None or "data" in piece or piece["sha256"] in self._known:
                continue
            self.store.put(f"blobs/{piece['sha256']}", given[1])
            self._known.add(piece["sha256"])
        if not self._create({"files": pieces}):
            raise self._lost()
        if self.state.number % COMPACT_AFTER == 0:
            self.compact()

    def release(self) -> None:
        """Give the lease back."""
        self._check_not_overtaken()
        if not self._create({"holder": None}):
            raise self._lost()
        self.store.delete([self._lease])

    def _create(self, fields: dict[str, Any]) -> bool:
        number = self.state.number + 1
        commit = {KEY: SCHEMA_VERSION, "number": number, "driver": self.id, **fields}
        content = json.dumps(commit).encode()
        if not self.store.create(commit_name(number), content):
            return False
        self.state.apply(json.loads(content))
        return True

    def _check_not_overtaken(self) -> None:
        """After a pause longer than the lease, look whether another driver has taken it.

        Numbers of commits that were compacted are free again, so the next one alone proves nothing.
        """
        if _clock() - self._renewed < LEASE_S:
            return
        reader = CommitLog(self.store)
        reader.load()
        holder = reader.state.holder
        if holder is None or holder["id"] != self.id:
            raise self._lost()
        self._renewed = _clock()

    def _lost(self) -> LeaseLostError:
        return LeaseLostError(
            f"another driver has taken over {self.store.address}, since this one did not renew "
            f"its lease for {LEASE_S:.0f} s; it writes nothing more there"
        )

    def compact(self) -> None:
        """Write the state as a snapshot, and delete what neither it nor a slow reader needs."""
        for name, pieces in self.state.files.items():
            if len(pieces) > 1:
                whole = b"".join(self.content(piece) for piece in pieces)
                piece = piece_of(whole)
                if "data" not in piece:
                    self.store.put(f"blobs/{piece['sha256']}", whole)
                self.state.files[name] = [piece]
        self._known = self.state.blobs()
        number = self.state.number
        found = {KEY: SCHEMA_VERSION, "number": number, "holder": self.state.holder}
        content = json.dumps({**found, "files": self.state.files}).encode()
        self.store.put(f"snapshots/{number:012d}.json", content)
        self._delete_old(number)

    def _delete_old(self, number: int) -> None:
        before = time.time() - GARBAGE_AGE_S
        commits = self.store.names("commits")
        old = [n for n in commits if _number(n) <= number - KEPT_COMMITS]
        old += sorted(self.store.names("snapshots"))[:-2]
        blobs = self.store.names("blobs")
        needed = {f"blobs/{digest}" for digest in self._known}
        old += [n for n, written in blobs.items() if n not in needed and written < before]
        self.store.delete(old)


def _number(name: str) -> int:
    return int(PurePosixPath(name).stem)


def _clock() -> float:
    """Seconds that continue while the machine sleeps."""
    boot = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(boot)
