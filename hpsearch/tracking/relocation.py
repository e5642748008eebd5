"""MLflow's SQLite database: checked before use, and relocated when its home was moved or copied.

MLflow writes absolute artifact addresses into its database, and makes relative ones absolute. After
a move they would point to the former path, which no longer exists or is the original of a copy.
Only the database inside the home is changed, and only addresses that pointed into the home.
"""

import fcntl
import json
import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote, urlsplit

from hpsearch.atomic_files import (
    check_target_file,
    check_target_folder,
    make_private,
    write_atomic,
)
from hpsearch.errors import UserError
from hpsearch.locations import database_path, inside_of, network_file_system, sqlite_address
from hpsearch.schema import from_json, to_json
from hpsearch.tracking.mlflow_errors import locked_error
from hpsearch.tracking.mlflow_tags import ARTIFACTS, DATABASE, EXPERIMENT
from hpsearch.untrusted import reason

MOVED, LOCK = "moved.json", "moved.lock"
"""Files in a home that has been moved: its former paths, and a lock of its database."""
MACHINE_LOCK = "mlflow.lock"
"""File next to a database on a network file system, which names the machine that writes."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
COLUMNS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)
"""Tables and columns with artifact addresses in MLflow 3."""
PATIENCE = 60.0
"""Seconds to wait for another process that writes to the database."""
LOCK_WAIT_S = 20.0
"""Seconds to wait for a locked database before it is read, as long as MLflow itself waits."""


def former_homes(home: Path) -> tuple[Path, ...]:
    """Former paths of a home that was moved or copied, the latest first."""
    now = _former_home(home / DATABASE, home)
    known = [Path(place) for place in _remembered(home)]
    return tuple(dict.fromkeys([*([now] if now else []), *known]))


def database_to_read(uri: str, home: Path) -> str:
    """Address of an SQLite database for a command that only reads; of a copy if need be.

    Raises:
        UserError: if it is missing, or cannot be read.
    """
    database = database_path(uri)
    if database is None:
        return uri
    if not database.is_file():
        raise UserError(
            f"there is no MLflow database {database}; begin with `hpsearch search`, or name "
            "another --home or --tracking-uri",
            code="no-mlflow-database",
        )
    if not os.access(database, os.R_OK):
        raise UserError(
            f"MLflow's database {database} cannot be read (permission denied); ask its owner for "
            "permission",
            code="mlflow-access-denied",
        )
    try:
        found = _readable_database(database, home)
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"MLflow's database {database} cannot be read ({reason(error)}); restore it from a "
            "copy, or free some space in the temporary folder",
            code="mlflow-access-denied",
        ) from error
    return uri if found == database else sqlite_address(found)


def database_to_write(uri: str, home: Path) -> str:
    """Address of an SQLite database for a command that writes, relocated if its home was moved.

    Raises:
        UserError: if its folder is missing, or it cannot be written.
    """
    if not home.is_dir():
        check_target_folder(home, "--home")
        make_private(home)
    database = database_path(uri)
    if database is None:
        return uri
    if not database.parent.is_dir():
        raise UserError(
            f"there is no folder {database.parent} for MLflow's database; create it, or give the "
            "address of another with --tracking-uri"
        )
    inside = inside_of(database, home) is not None
    check_target_file(database, "--home" if inside else "--tracking-uri")
    if database.is_file() and not _is_writable(database):
        raise UserError(
            f"MLflow's database {database} cannot be written (read-only, or permission denied); "
            "name another with --tracking-uri, or another --home",
            code="mlflow-access-denied",
        )
    if network_file_system(database):
        _hold_for_this_machine(database)
    if inside:
        _relocate(database, home)
    return uri


def _relocate(database: Path, home: Path) -> None:
    """Rewrite the artifact addresses in MLflow's database, if the home was moved.

    Raises:
        OSError, sqlite3.OperationalError: if the home cannot be written.
    """
    if _former_home(database, home) is None:
        return
    with _held(home):
        before = _former_home(
            database, home
        )  # checked again under the lock: another process may have done it
        if before is not None:
            _remember(home, before)
            _rewrite(database, before, home)


def _is_writable(database: Path) -> bool:
    """Return whether this user can write a database; its folder too, for SQLite's journal."""
    return all(os.access(path, os.W_OK) for path in (database, database.parent))


_copies: list[tempfile.TemporaryDirectory[str]] = []
"""Folders with copies of databases; removed at the end of the process."""


def _readable_database(database: Path, home: Path) -> Path:
    """Database for a command that only reads: the one in the home, or a relocated copy of it.

    A copy is made where SQLite cannot create its journal, where another machine may write, and
    where the home was moved since the database was last written, because its addresses would lead
    to the former home.
    """
    before = _former_home(database, home)
    if before is None and _is_writable(database) and not network_file_system(database):
        return database
    _copies.append(tempfile.TemporaryDirectory(prefix="hpsearch-mlflow-"))
    copy = Path(_copies[-1].name) / database.name
    try:
        with _opened(database, "ro") as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except sqlite3.Error:  # a journal must be applied first, which a copy allows
        for path in database.parent.glob(f"{database.name}*"):
            shutil.copyfile(path, copy.with_name(path.name))
    if before is not None:
        _rewrite(copy, before, home)
    return copy


_machine_locks: dict[Path, TextIO] = {}
"""Open lock files of databases on network file systems; held until the process ends."""


def _hold_for_this_machine(database: Path) -> None:
    """Keep other machines from writing a database on a network file system.

    SQLite's locks coordinate the processes of one machine, and its write-ahead log shares memory;
    neither reaches another machine. All processes of a machine share our lock.

    Raises:
        UserError: if a process of another machine holds the lock, or there are no locks.
    """
    if database in _machine_locks:
        return
    lock = database.with_name(MACHINE_LOCK).open("a+", encoding="utf-8")
    machine = {"host": socket.gethostname(), "boot": BOOT_ID.read_text("utf-8").strip()}
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if _lock_owner(lock).get("boot") != machine["boot"]:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.truncate(0)
            lock.write(json.dumps(machine))
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _leave_write_ahead_log(database)
    except BlockingIOError as error:
        owner = _lock_owner(lock).get("host", "another machine")
        lock.close()
        raise UserError(
            f"{owner} is writing to MLflow's database {database}, which lies on a network file "
            "system; wait for the end there, or give the address of an MLflow server with "
            "--tracking-uri",
            code="mlflow-other-machine",
        ) from error
    except OSError as error:
        lock.close()
        raise UserError(
            f"the network file system of {database} has no locks ({reason(error)}); give the "
            "address of an MLflow server with --tracking-uri",
            code="mlflow-no-locks",
        ) from error
    _machine_locks[database] = lock


def _lock_owner(lock: TextIO) -> dict[str, str]:
    lock.seek(0)
    try:
        return dict(json.loads(lock.read()))
    except (ValueError, TypeError):
        return {}  # empty, or cut short


def _leave_write_ahead_log(database: Path) -> None:
    if database.is_file():
        with (
            closing(sqlite3.connect(database, timeout=PATIENCE)) as opened,
            suppress(sqlite3.Error),
        ):
            opened.execute("PRAGMA journal_mode = DELETE")


def _opened(database: Path, mode: str, *, timeout: float = PATIENCE) -> closing[sqlite3.Connection]:
    uri = f"{database.absolute().as_uri()}?mode={mode}"
    return closing(sqlite3.connect(uri, uri=True, timeout=timeout))


def _former_home(database: Path, home: Path) -> Path | None:
    """Home of a database's artifacts, if it differs from the one that contains the database."""
    location = _artifact_location(database)
    if location is None or not location.startswith("file:"):
        return None
    artifacts = Path(unquote(urlsplit(location).path))
    if artifacts.name != ARTIFACTS or _same(artifacts.parent, home):
        return None
    return artifacts.parent


def _artifact_location(database: Path) -> str | None:
    """Artifact location of the experiment, as MLflow stores it.

    Raises:
        MlflowUnavailableError: if the database stays locked, since it may have to be relocated.
    """
    if not database.is_file():
        return None
    question = "SELECT artifact_location FROM experiments WHERE name = ?"
    mode = "rw" if _is_writable(database) else "ro"
    try:
        with _opened(database, mode, timeout=LOCK_WAIT_S) as found:
            row = found.execute(question, (EXPERIMENT,)).fetchone()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise locked_error(sqlite_address(database)) from error
        return None  # not a database of MLflow, or still empty
    return row[0] if row else None


def _same(place: Path, home: Path) -> bool:
    here = home.absolute()
    return place == here or (place.exists() and here.exists() and place.samefile(here))


def _rewrite(database: Path, before: Path, home: Path) -> None:
    """Rewrite all addresses in one transaction; the experiment, which is checked, comes last."""
    old, new = ((place / ARTIFACTS).as_uri() for place in (before, home.absolute()))
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as open_, open_:
        open_.execute("BEGIN IMMEDIATE")
        for table, column in COLUMNS:
            if column not in {row[1] for row in open_.execute(f"PRAGMA table_info({table})")}:
                continue
            open_.execute(
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                f"WHERE {column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'",
                {"old": old, "new": new},
            )


def _remembered(home: Path) -> list[str]:
    path = home / MOVED
    return from_json(path.read_text("utf-8"), path)["former"] if path.is_file() else []


def _remember(home: Path, before: Path) -> None:
    former = [str(before), *(place for place in _remembered(home) if place != str(before))]
    write_atomic(home / MOVED, to_json({"former": former}, indent=1))


@contextmanager
def _held(home: Path) -> Iterator[None]:
    with (home / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
