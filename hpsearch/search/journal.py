"""A study in one file, which survives the death of whoever writes it.

Optuna's journal costs a tenth of the time of its SQLite storage on the driver, and works on shared
disks. But its lock outlives its holder by half a minute, and a line that was cut off makes the file
unreadable as soon as another follows; both are mended here.
"""

import fcntl
import os
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


class DeathReleasedLock(JournalFileOpenLock):
    """A lock that the operating system takes back when its holder dies."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path.with_name(f"{path.name}.lock")
        self._held: int | None = None

    def acquire(self) -> bool:
        """Wait for it."""
        descriptor = os.open(self._path, os.O_CREAT | os.O_WRONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._held = descriptor
        return True

    def release(self) -> None:
        """Give it back."""
        assert self._held is not None, "only who holds it gives it back"
        os.close(self._held)
        self._held = None


def open_journal(path: Path) -> JournalStorage:
    """The storage in ``path``, made if need be, without a last line that was cut off."""
    lock = DeathReleasedLock(path)
    lock.acquire()
    try:
        path.touch()
        _cut_torn_line(path)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock))


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            whole = path.read_bytes().rfind(b"\n") + 1
            file.truncate(whole)
