"""Connection to MLflow: address, credentials, and translation of errors."""

import os
import sqlite3
import sys
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from uuid import uuid4

from hpsearch.errors import UserError
from hpsearch.host_limits import exempt_this_machine_from_proxies
from hpsearch.locations import (
    database_path,
    located,
    moved,
    network_file_system,
    recorded,
)
from hpsearch.redaction import filled_in, redacted
from hpsearch.tracking.mlflow_errors import translate_all_errors
from hpsearch.tracking.mlflow_tags import EXPERIMENT, artifact_location, is_server
from hpsearch.tracking.relocation import database_to_read, database_to_write, former_homes

if TYPE_CHECKING:
    from mlflow import MlflowClient

MLFLOW_VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
POSTGRESQL_VARIABLES = ("PGUSER", "PGPASSWORD")


def move_credentials_to_env(uri: str) -> str:
    """Move user and password of an address to the variables that MLflow's clients read.

    A database whose client reads no such variables keeps them in its address, which must be
    ``redacted`` before it is written or printed.

    Returns:
        The address without what was moved.
    """
    parts = urlsplit(uri)
    names = _credential_variables(parts)
    if names is None or not (parts.username or parts.password):
        return uri
    for name, value in zip(names, (parts.username, parts.password), strict=True):
        if value:
            os.environ[name] = unquote(value)
    bare = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=bare))


def _credential_variables(parts: SplitResult) -> tuple[str, str] | None:
    """Names of the variables that the client of such an address reads."""
    if is_server(f"{parts.scheme}://"):
        return MLFLOW_VARIABLES
    return POSTGRESQL_VARIABLES if parts.scheme.startswith("postgres") else None


DATABRICKS_MODULE = "dbruntime"
"""Module of Databricks' own machines, which MLflow's client looks for in each request."""


def configure_client() -> None:
    """Let MLflow's client give up within a minute, unless the user has set its retries.

    Where there is no Databricks, Python notes that its module is absent: otherwise each request
    searches the whole path for it several times, a fifth of the processor time of a request.
    """
    exempt_this_machine_from_proxies()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    if DATABRICKS_MODULE not in sys.modules and find_spec(DATABRICKS_MODULE) is None:
        sys.modules[DATABRICKS_MODULE] = None  # pyright: ignore[reportArgumentType]


SCHEMA = Path(__file__).with_name("mlflow_schema.sql")
"""MLflow's empty database as SQL, which ``.ci/mlflow_schema.py`` writes."""


def create_database(uri: str) -> None:
    """Create MLflow's SQLite database if its file is missing.

    MLflow runs all its migrations for that, one to two seconds of processor time. It is left to
    MLflow where the SQL is of another version, or the file cannot be created.
    """
    path = database_path(uri)
    if path is None or path.exists():
        return
    script = SCHEMA.read_text("utf-8")
    if script.partition("\n")[0] != f"-- MLflow {version('mlflow')}":
        return
    part = path.with_name(f".{path.name}.{uuid4().hex}")
    with suppress(OSError, sqlite3.Error):
        try:
            with closing(sqlite3.connect(part)) as database:
                database.executescript(script)
            os.link(part, path)  # an error if another process was faster
        finally:
            part.unlink(missing_ok=True)


DATABASE_SCHEMES = ("sqlite:", "sqlite+pysqlite:", "postgres", "mysql", "mssql")


@dataclass(frozen=True, kw_only=True)
class TrackingServer:
    """MLflow server or database that runs are written to."""

    uri: str = field(repr=False)
    given: str = field(default="", repr=False)
    """Address as the user gave it; environment variables in it are not replaced."""
    network_file_system: str = ""
    """Kind of the network file system that the database lies on, such as ``nfs4``."""
    is_copy: bool = False
    """True if it is a copy of a database that cannot be written, or whose home was moved."""
    artifact_root: str | None = None
    """Artifact location for a new experiment; None lets the server decide."""
    experiment: str = EXPERIMENT
    home: Path | None = None
    """Home that the database belongs to; None if unknown."""
    former: tuple[Path, ...] = ()
    """Earlier paths of that home, from before it was moved."""

    @property
    def display_uri(self) -> str:
        """Address without passwords, for output and files."""
        return redacted(self.uri)

    @property
    def recorded(self) -> str:
        """Address as it is recorded in files of its home."""
        if self.home is None or is_server(self.uri):
            return self.display_uri
        return recorded(self.display_uri, self.home)

    def renamed(self, address: str) -> str:
        """Translate an address that was recorded in this home to the present one.

        Version 0.1.0 recorded absolute paths of databases, including those in the home.
        """
        if self.home is None or is_server(address) or located(address, self.home) != address:
            return address
        return recorded(moved(address, self.home, self.former), self.home)

    def check_exists(self, model: str) -> None:
        """Check that the database exists before MLflow is asked for a model, which would create it.

        Raises:
            UserError: if it is a file that does not exist.
        """
        database = database_path(self.uri)
        if database is not None and not database.is_file():
            raise UserError(
                f"there is no registered model {model!r}, because {database} does not exist; run a "
                "search first, or correct --home or --tracking-uri",
                code="no-such-model",
            )

    def client(self) -> "MlflowClient":
        """Create a client of the tracking server and its registry."""
        from mlflow import MlflowClient

        configure_client()
        create_database(self.uri)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def check_experiment(self, *, must_answer: bool = False) -> None:
        """Check before any training that runs can be written to the experiment.

        Args:
            must_answer: a server that does not answer is an error; training does not need it.

        Raises:
            UserError: if the experiment was deleted.
            MlflowUnavailableError: if the server does not answer or refuses, and must not.
        """
        try:
            with translate_all_errors(self.uri):
                found = self.client().get_experiment_by_name(self.experiment)
        except Exception:  # whatever it is, sending the runs meets and reports it
            if must_answer:
                raise
            return
        if found is not None and found.lifecycle_stage == "deleted":
            raise UserError(
                f"the experiment {self.experiment!r} was deleted in MLflow at {self.display_uri}, "
                "so no run can be written to it; restore it with `mlflow experiments restore "
                f"--experiment-id {found.experiment_id}` (MLFLOW_TRACKING_URI set to that "
                "address), or give another --tracking-uri",
                code="experiment-deleted",
            )

    def experiment_id(self) -> str:
        """Id of the experiment, which is created if it does not exist."""
        from mlflow.exceptions import MlflowException

        client = self.client()
        found = client.get_experiment_by_name(self.experiment)
        if found is not None:
            return found.experiment_id
        try:
            return client.create_experiment(self.experiment, artifact_location=self.artifact_root)
        except MlflowException:
            made = client.get_experiment_by_name(self.experiment)
            if made is None:
                raise
            return made.experiment_id  # created by another process in the meantime


def resolve_tracking(uri: str, home: Path, *, read_only: bool = False) -> TrackingServer:
    """Resolve an MLflow address; artifacts go to the home folder if it is a database.

    Args:
        uri: the address; environment variables in it are substituted.
        home: the home folder, which is created if missing, unless ``read_only``.
        read_only: only read; nothing is written to the home, whose database may be read-only.

    Raises:
        UserError: if it is not an address of a server or a database, names an environment
            variable that is not set, or is an SQLite file in a folder that does not exist; if
            the file is missing or unreadable (``read_only``), or cannot be written.
    """
    given, bare = accept_address(uri)
    opened, database = bare, database_path(bare)
    if bare.startswith("sqlite"):
        opened = (database_to_read if read_only else database_to_write)(bare, home)
    return TrackingServer(
        uri=opened,
        given=given,
        is_copy=opened != bare,
        network_file_system=network_file_system(database) if database else "",
        artifact_root=artifact_location(bare, home),
        home=home,
        former=former_homes(home),
    )


def accept_address(uri: str) -> tuple[str, str]:
    """Check the form of an address, and move its credentials to the environment.

    Returns:
        The address as the user gave it, and with its environment variables substituted; both
        without the credentials that were moved.

    Raises:
        UserError: if it is not an address of a server or a database, or names an environment
            variable that is not set.
    """
    full = filled_in(uri)
    if not (is_server(full) or full.startswith(DATABASE_SCHEMES)):
        raise UserError(
            f"{redacted(full)!r} is not a tracking URI; write http://HOST:PORT, "
            "or a database such as sqlite:////PATH/mlflow.db",
            code="invalid-tracking-uri",
        )
    bare = move_credentials_to_env(full)
    return (bare if full == uri else uri), bare
