"""The home that 0.1.0 left, in a place where it has never been."""

import json
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest

FOLDER = Path(__file__).parent
PLACE = Path("/tmp/hpsearch-0.1.0/runs")
"""Where the home lay when it was made, and what its files say."""
COLUMNS = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("experiments", "artifact_location"),
)
"""Where MLflow's database says it."""


@pytest.fixture(scope="session")
def expected() -> dict[str, Any]:
    """What 0.1.0 says of the home, and of the space files that were written for it."""
    return json.loads((FOLDER / "expected-0.1.0.json").read_text())


def unpack(to: Path) -> Path:
    """The home, moved into a folder."""
    with tarfile.open(FOLDER / "home-0.1.0.tar.xz") as archive:
        archive.extractall(to, filter="data")
    return to / "runs"


def made_at(to: Path) -> Path:
    """The home as it would be if 0.1.0 had made it in a folder, but for its ledgers."""
    home = unpack(to)
    for name in ("search.json", "published.json"):
        for path in home.glob(f"searches/*/{name}"):
            path.write_text(path.read_text().replace(str(PLACE), str(home)))
    with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
        for table, column in COLUMNS:
            change = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
            database.execute(change, (PLACE.as_uri(), home.as_uri()))
    return home


def artifact_places(home: Path) -> list[str]:
    """Every address of an artifact in MLflow's database that belongs to a search or its models."""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        return [
            place
            for table, column in COLUMNS
            for (place,) in database.execute(f"SELECT {column} FROM {table}")
            if not place.endswith("/mlruns/0")  # MLflow's own experiment, which has no run
        ]


@pytest.fixture(autouse=True)
def forget_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow keeps the address that it was pointed to, in the environment too."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    mlflow.set_registry_uri(None)  # type: ignore[arg-type]
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(autouse=True)
def nothing_at_the_old_place() -> Iterator[None]:
    """No folder appears where the home lay when it was made."""
    assert not PLACE.parent.exists(), f"{PLACE.parent} is in the way: remove it"
    yield
    assert not PLACE.parent.exists()
