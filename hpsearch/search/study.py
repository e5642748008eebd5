"""Optuna study of a search, in a journal file or a database.

The journal is read once and then kept in memory. A database is asked for every running trial again
whenever the study is read, some nine times for each trial that TPE draws: milliseconds with one
trial at a time, seconds with a hundred. For a search of many trials at once, keep the study in the
journal and publish it in a database at the end with ``optuna.copy_study``.
"""

import fcntl
import json
import os
from pathlib import Path
from typing import BinaryIO

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import UserError
from hpsearch.redaction import filled_in, redacted
from hpsearch.search.samplers import build_sampler
from hpsearch.search.search import Search
from hpsearch.search.trial_queue import started_trials
from hpsearch.untrusted import reading, reason


def open_journal(path: Path) -> JournalStorage:
    """Open the storage in a file, made if need be.

    Raises:
        UserError: if what is in the file is no study.
    """
    with reading(path, "study", "restore it from a copy, or begin a new search"):
        _check_last_line(path)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_FileLock(path)))


def _check_last_line(path: Path) -> None:
    """Refuse a journal whose last whole line is no JSON, which Optuna only tells at the next line.

    Raises:
        ValueError: if it is not.
    """
    if path.exists():
        whole = path.read_bytes().rpartition(b"\n")[0]
        if whole:
            json.loads(whole.rpartition(b"\n")[2])


class _FileLock(JournalFileOpenLock):
    """Lock of a journal for its only writer, which the operating system releases if that dies.

    Optuna's own locks outlive their holder by half a minute. Where the last writer did not finish
    its line, that is removed: the next line would otherwise make one with it that nobody can read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._file: BinaryIO | None = None

    def acquire(self) -> bool:
        """Wait for the lock, and leave a file of whole lines."""
        file = self._path.open("rb+")
        fcntl.flock(file, fcntl.LOCK_EX)
        _truncate_partial_line(file)
        self._file = file
        return True

    def release(self) -> None:
        """Let the next writer in."""
        if self._file is not None:
            self._file.close()  # and so unlocked
            self._file = None


def _truncate_partial_line(file: BinaryIO) -> None:
    """Cut a file after its last whole line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if size == 0 or file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)


JOURNAL_PREFIX, JOURNAL_FILE = "journal:", "study.journal"


def study_address(folder: Path, url: str | None = None) -> str:
    """A database's URL, or ``journal:PATH`` for a file that a shared disk can hold."""
    return url or f"{JOURNAL_PREFIX}{folder / JOURNAL_FILE}"


def open_study(folder: Path, *, search: Search, url: str | None = None) -> optuna.Study:
    """The study of a search, made if need be.

    Raises:
        UserError: if its storage does not open.
    """
    return study_in(open_study_storage(folder, url), folder.name, search)


def open_study_storage(folder: Path, url: str | None = None) -> BaseStorage:
    """Open the storage of a search's study.

    Raises:
        UserError: if it does not open.
    """
    return _open_storage(study_address(folder, url))


def study_in(storage: BaseStorage, name: str, search: Search) -> optuna.Study:
    """Load the study of a search from its storage, or create it there."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=build_sampler(search.sampler, seed=search.seed, point=0),
        pruner=optuna.pruners.NopPruner(),  # Ray's scheduler decides who is stopped
        directions=[objective.direction for objective in search.objectives],
        load_if_exists=True,
    )


def running_trial(study: optuna.Study, storage: BaseStorage, number: int) -> optuna.Trial:
    """Take over a trial that another session started, by its number in the study."""
    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


def study_without_imports(study: optuna.Study) -> optuna.Study:
    """The same study with the trials of this search alone, in memory, to look at."""
    own = optuna.create_study(study_name=study.study_name, directions=study.directions)
    own.add_trials(started_trials(study.get_trials(deepcopy=False)))
    return own


def check_study_name_available(url: str, name: str) -> None:
    """Make sure that a storage opens and has no study of this name yet.

    Raises:
        UserError: if it does not, or has.
    """
    if name in optuna.get_all_study_names(_open_storage(url)):
        raise UserError(
            f"there is a study {name!r} at {redacted(url)} already; choose another --name"
        )


def _open_storage(url: str) -> BaseStorage:
    try:
        if not url.startswith(JOURNAL_PREFIX):
            return RDBStorage(filled_in(url))
        path = Path(filled_in(url.removeprefix(JOURNAL_PREFIX)))
        if not path.parent.is_dir():
            raise UserError(f"there is no folder {path.parent} for the study's journal; make it")
        return open_journal(path)
    except UserError:
        raise
    except (SQLAlchemyError, ImportError, OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"no study can be kept at {redacted(url)} ({reason(error)}); give the URL of a "
            "database that SQLAlchemy knows and that answers, or journal:PATH"
        ) from error
