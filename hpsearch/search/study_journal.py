"""Journal of a study: Optuna's operations, one JSON line each, in a file with one writer at a time.

Optuna's own file backend opens the file three times for each operation and flushes each to disk.
A trial takes about 25 operations before it starts, so on a disk of 5 ms the driver would stand
still for an eighth of a second, while all other trials wait. Here the operations of a group are
flushed together, and intermediate values not at all: a power cut may lose those of the last
seconds, which trials report again when they resume from their checkpoints.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import FileIO
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend

from hpsearch.untrusted import reading

REPORT_FIELD = "intermediate_value"
"""Field that only the operation of a report has; it is not flushed to disk."""


class StudyJournal(BaseJournalBackend):
    """File of a study's operations, in the format of Optuna's ``JournalFileBackend``.

    The operating system releases the lock of a writer that dies; Optuna's locks stay for half a
    minute. A partial last line is removed, since the next line would be appended to it and become
    unreadable.

    Args:
        path: of the file, which is created if missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number, self._offset = 0, 0
        """Operations that were read, and the byte where the next one begins."""
        self._depth, self._is_unflushed = 0, False
        path.open("ab").close()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Read whole lines from operation ``log_number_from`` on.

        Raises:
            ValueError: if a line is no JSON.
        """
        if log_number_from != self._number:
            self._number, self._offset = 0, 0
        if self._path.stat().st_size <= self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        for line in data.split(b"\n")[:-1]:
            self._number, self._offset = self._number + 1, self._offset + len(line) + 1
            if self._number > log_number_from:
                yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations; they are on disk when this returns, or at the end of the group."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._path.open("rb+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            _truncate_partial_line(file)
            rest = lines.encode()
            while rest:  # a full disk takes a part, and raises at the next one
                rest = rest[file.write(rest) :]
            if all(REPORT_FIELD in log for log in logs):
                return
            self._is_unflushed = True
            if not self._depth:
                self._flush(file)

    @contextmanager
    def grouped(self) -> Iterator[None]:
        """While inside, operations reach other processes at once, and the disk at the end."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth and self._is_unflushed:
                with self._path.open("rb+", buffering=0) as file:
                    self._flush(file)

    def _flush(self, file: FileIO) -> None:
        os.fsync(file.fileno())
        self._is_unflushed = False


class StudyJournalStorage(JournalStorage):
    """Optuna's journal storage on a ``StudyJournal``."""

    def __init__(self, path: Path) -> None:
        self.journal = StudyJournal(path)
        super().__init__(self.journal)


def grouped_writes(storage: BaseStorage | None) -> AbstractContextManager[None]:
    """While inside, flush what is written to a journal once; no effect on other storages."""
    return storage.journal.grouped() if isinstance(storage, StudyJournalStorage) else nullcontext()


def open_journal(path: Path) -> StudyJournalStorage:
    """Open the journal storage in a file, which is created if missing.

    Raises:
        UserError: if the file is not a study.
    """
    with reading(path, "study", "restore it from a copy, or start a new search"):
        _check_last_line(path)
        return StudyJournalStorage(path)


def _check_last_line(path: Path) -> None:
    """Refuse a journal whose last whole line is no JSON, before anything is appended.

    Raises:
        ValueError: if it is not.
    """
    if path.exists():
        whole = path.read_bytes().rpartition(b"\n")[0]
        if whole:
            json.loads(whole.rpartition(b"\n")[2])


def _truncate_partial_line(file: FileIO) -> None:
    """Truncate a file after its last complete line, and go to its end."""
    size = file.seek(0, os.SEEK_END)
    if size == 0 or os.pread(file.fileno(), 1, size - 1) == b"\n":
        return
    file.seek(0)
    file.seek(file.truncate(file.readall().rfind(b"\n") + 1))
