"""Relocation of a home that was moved or copied: former paths, and MLflow's database.

MLflow writes absolute artifact addresses into its database, and makes relative ones absolute. After
a move they would point to the former path, which no longer exists or is the original of a copy.
Only the database inside the home is changed, and only addresses that pointed into the home.
"""

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hpsearch.atomic_files import write_atomic
from hpsearch.schema import from_json, to_json
from hpsearch.tracking.mlflow_tags import ARTIFACTS, DATABASE, EXPERIMENT

MOVED, LOCK = "moved.json", "moved.lock"
"""Files in a home that has been moved: its former paths, and a lock of its database."""
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


def former_homes(home: Path) -> tuple[Path, ...]:
    """Former paths of a home that was moved or copied, the latest first."""
    now = _former_home(home / DATABASE, home)
    known = [Path(place) for place in _remembered(home)]
    return tuple(dict.fromkeys([*([now] if now else []), *known]))


def relocate(database: Path, home: Path) -> None:
    """Rewrite the artifact addresses in MLflow's database, if the home was moved.

    A read-only home stays unchanged.
    """
    if _former_home(database, home) is None:
        return
    with suppress(PermissionError, sqlite3.OperationalError), _held(home):
        before = _former_home(
            database, home
        )  # checked again under the lock: another process may have done it
        if before is not None:
            _remember(home, before)
            _rewrite(database, before, home)


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
    """Artifact location of the experiment, as MLflow stores it."""
    if not database.is_file():
        return None
    question = "SELECT artifact_location FROM experiments WHERE name = ?"
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=rw", uri=True)) as found:
            row = found.execute(question, (EXPERIMENT,)).fetchone()
    except sqlite3.Error:
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
    return from_json(path.read_text(), path)["former"] if path.is_file() else []


def _remember(home: Path, before: Path) -> None:
    former = [str(before), *(place for place in _remembered(home) if place != str(before))]
    write_atomic(home / MOVED, to_json({"former": former}, indent=1))


@contextmanager
def _held(home: Path) -> Iterator[None]:
    with (home / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
