"""Optuna study of a search, in a journal file or a database."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import UserError
from hpsearch.search.samplers import build_sampler
from hpsearch.search.search import Search
from hpsearch.search.trial_queue import begun


def open_journal(path: Path) -> JournalStorage:
    """The storage in ``path``, made if need be.

    What was written outlives its writer, but may be lost with the machine's power, as anything that
    the operating system has not yet put on the disk.
    """
    return JournalStorage(_Journal(path))


class _Journal(BaseJournalBackend):
    """One JSON line an operation; only whole lines count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = (0, 0)
        """Lines read so far, and the bytes that they take."""
        path.touch()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        number, offset = self._read if self._read[0] <= log_number_from else (0, 0)
        with self._path.open("rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                number, offset = number + 1, offset + len(line)
                self._read = (number, offset)
                if number > log_number_from:
                    yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._path.open("rb+") as file, _locked(file):
            _cut_torn_line(file)
            file.write(lines.encode())
            file.flush()


@contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    """For its only writer; the operating system takes the lock back when its holder dies."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _cut_torn_line(file: BinaryIO) -> None:
    """Go to the end of the last whole line; what follows its writer did not finish."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)


JOURNAL, FILE = "journal:", "study.journal"


def study_address(folder: Path, url: str | None = None) -> str:
    """A database's URL, or ``journal:PATH`` for a file that a shared disk can hold."""
    return url or f"{JOURNAL}{folder / FILE}"


def in_database(url: str | None) -> bool:
    """Whether reading a study asks a database; a journal is read once and then kept in memory."""
    return url is not None and not url.startswith(JOURNAL)


def open_study(folder: Path, *, search: Search, url: str | None = None) -> optuna.Study:
    """The study of a search, made if need be.

    Raises:
        UserError: if its storage does not open.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = _storage(study_address(folder, url))
    return optuna.create_study(
        storage=storage,
        study_name=folder.name,
        sampler=build_sampler(search.sampler, seed=search.seed, point=0),
        pruner=optuna.pruners.NopPruner(),  # Ray's scheduler decides who is stopped
        directions=[objective.direction for objective in search.objectives],
        load_if_exists=True,
    )


def own_study(study: optuna.Study) -> optuna.Study:
    """The same study with the trials of this search alone, in memory, to look at."""
    own = optuna.create_study(study_name=study.study_name, directions=study.directions)
    own.add_trials(begun(study.get_trials(deepcopy=False)))
    return own


def check_free(url: str, name: str) -> None:
    """Make sure that a storage opens and has no study of this name yet.

    Raises:
        UserError: if it does not, or has.
    """
    if name in optuna.get_all_study_names(_storage(url)):
        raise UserError(f"there is a study {name!r} at {shown(url)} already; choose another --name")


def shown(url: str) -> str:
    """An address without its password; a variable in it stays a variable."""
    head, at, tail = url.rpartition("@")
    scheme, _, user = head.partition("://")
    return f"{scheme}://{user.partition(':')[0]}:***@{tail}" if at and ":" in user else url


def _storage(url: str) -> optuna.storages.BaseStorage:
    try:
        if not url.startswith(JOURNAL):
            return RDBStorage(os.path.expandvars(url))
        path = Path(os.path.expandvars(url.removeprefix(JOURNAL)))
        if not path.parent.is_dir():
            raise UserError(f"there is no folder {path.parent} for the study's journal; make it")
        return open_journal(path)
    except UserError:
        raise
    except (SQLAlchemyError, ImportError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"no study can be kept at {shown(url)} ({reason}); give the URL of a database that "
            "SQLAlchemy knows and that answers, or journal:PATH"
        ) from error
