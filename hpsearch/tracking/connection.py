"""Connection to MLflow: address, credentials, and translation of errors."""

import os
import re
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import mlflow
from mlflow import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.atomic_files import DISK_FULL_MESSAGES
from hpsearch.errors import UserError
from hpsearch.locations import (
    database_path,
    located,
    moved,
    network_file_system,
    recorded,
)
from hpsearch.redaction import filled_in, redacted
from hpsearch.tracking.mlflow_tags import EXPERIMENT, artifact_location, is_server
from hpsearch.tracking.relocation import database_to_read, database_to_write, former_homes

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException as TrackingError

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


def __getattr__(name: str) -> Any:
    """Import ``TrackingError`` when it is first used: MLflow takes more than a second to import.

    It is the error of MLflow's client when the server refuses a request or does not answer.
    """
    if name != "TrackingError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlflow.exceptions import MlflowException

    return MlflowException


NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a model, version or alias that does not exist."""
ACCESS_DENIED_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED")
UNAUTHORIZED = re.compile(r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED|password authentic")
UNREACHABLE = re.compile(r"Connection|Max retries|timed out|resolve|Failed to establish")
SERVER_ERROR = re.compile(r"too many (5\d\d) error responses|failed with error code (5\d\d)")
NOT_MLFLOW = re.compile(r"failed with error code 4\d\d|Expecting value|JSONDecode|not.*valid JSON")
OTHER_SCHEMA = re.compile(r"out-of-date database schema \(found version (\w+)")
STORAGE_ERRORS = (
    (
        re.compile("|".join(("disk is full", *DISK_FULL_MESSAGES))),
        "mlflow-disk-full",
        "MLflow at {} reported a full disk; free some space on the server",
    ),
    (
        re.compile(r"database (table )?is locked"),
        "mlflow-locked",
        "the database of MLflow at {} is locked by another process; try again once that has ended",
    ),
)
"""Errors of MLflow's storage: pattern of the message, code, and sentence."""
DATABASE_ERROR = re.compile(r"^\((?:sqlite3|psycopg2?)\.\S+\) ")
TRANSIENT_CODES = frozenset({"mlflow-locked", "mlflow-server-error", "mlflow-unreachable"})
"""Codes of errors that may be gone at the next attempt."""
ADDRESS_HINT = "correct --tracking-uri or MLFLOW_TRACKING_URI"


DATABASE_ERRORS = (SQLAlchemyError, sqlite3.Error)
"""Errors of a database as they are: SQLAlchemy's while MLflow opens it, and SQLite's own."""
PROGRAMMING_ERRORS = (KeyError, AttributeError, TypeError)
"""Errors that MLflow's client raises at an answer which is not MLflow's, and a bug of ours too."""


class MlflowUnavailableError(UserError):
    """Error of an MLflow server that refuses a request or does not answer."""

    default_code = "mlflow-unavailable"


@contextmanager
def translate_mlflow_errors(uri: str) -> Iterator[None]:
    """Translate errors of MLflow at ``uri`` within code that also does other work.

    Raises:
        MlflowUnavailableError: if it refuses or does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, *DATABASE_ERRORS, OSError, ImportError) as error:
        raise _unavailable(error, uri) from error


@contextmanager
def translate_all_errors(uri: str) -> Iterator[None]:
    """Translate all errors within code that only calls MLflow at ``uri``.

    Raises:
        MlflowUnavailableError: if it refuses, does not answer, or is not MLflow.
    """
    try:
        with translate_mlflow_errors(uri):
            yield
    except UserError:
        raise
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        if not is_raised_by_mlflow(error):
            raise
        raise _unavailable(error, uri) from error


def format_error(error: Exception, uri: str) -> str:
    """Sentence for an error of MLflow at ``uri``: cause and action."""
    return _classify(error, uri)[1]


def _unavailable(error: Exception, uri: str) -> MlflowUnavailableError:
    code, sentence = _classify(error, uri)
    return MlflowUnavailableError(sentence, code=code)


def _classify(error: Exception, uri: str) -> tuple[str, str]:
    """Code and sentence for an error of MLflow at ``uri``."""
    schema = OTHER_SCHEMA.search(str(error))
    return _other_schema(redacted(uri), schema[1]) if schema else _classify_failure(error, uri)


def _classify_failure(error: Exception, uri: str) -> tuple[str, str]:
    message = redacted(" ".join(str(error).split()))
    where, code = redacted(uri), getattr(error, "error_code", "")
    if UNAUTHORIZED.search(message):
        return "mlflow-credentials", (
            f"MLflow at {where} rejected the credentials; set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or ask for permission"
        )
    if (
        code in ACCESS_DENIED_CODES
        or "readonly database" in message
        or isinstance(error, PermissionError)
    ):
        return "mlflow-access-denied", (
            f"MLflow at {where} denied access ({first_error_line(error)}); ask for permission"
        )
    if failed := next((known for known in STORAGE_ERRORS if known[0].search(message)), None):
        return failed[1], failed[2].format(where)
    if isinstance(error, ImportError):
        return "no-database-driver", (
            f"{where} needs a database driver: {message}; install it, or {ADDRESS_HINT}"
        )
    if failed := SERVER_ERROR.search(message):
        status = failed[1] or failed[2]
        return "mlflow-server-error", (
            f"MLflow at {where} returned HTTP {status} without a message; check the server log"
        )
    if isinstance(error, PROGRAMMING_ERRORS) and not is_raised_by_mlflow(error):
        return "internal-error", (
            f"hpsearch itself failed ({type(error).__name__}: {message}); report this as a bug"
        )
    if NOT_MLFLOW.search(message) or isinstance(error, PROGRAMMING_ERRORS):
        return "not-mlflow", f"the service at {where} is not MLflow; {ADDRESS_HINT}"
    if code in NOT_FOUND_CODES:
        return "no-such-mlflow-entry", (
            f"MLflow at {where} has no such entry ({first_error_line(error)}); "
            "list what exists with `hpsearch ui`"
        )
    if UNREACHABLE.search(message):
        return "mlflow-unreachable", (
            f"MLflow at {where} does not answer; start the server, or {ADDRESS_HINT}"
        )
    failure = message[:300].rstrip(". ")
    return "mlflow-error", f"MLflow at {where} failed: {failure}; {ADDRESS_HINT}"


def _other_schema(where: str, revision: str) -> tuple[str, str]:
    """Code and sentence for a database of another MLflow, newer if its revision is unknown here."""
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if any(migrations.glob(f"{revision}_*.py")):
        return "mlflow-schema-older", (
            f"the database {where} was written by an older MLflow than the installed "
            f"{mlflow.__version__}; make a copy of it, then run `mlflow db upgrade URI` with its "
            "address"
        )
    return "mlflow-schema-newer", (
        f"the database {where} was written by a newer MLflow than the installed "
        f"{mlflow.__version__}, which does not know its schema {revision}; install the MLflow that "
        "wrote it, or give another database with --tracking-uri"
    )


def is_raised_by_mlflow(error: BaseException) -> bool:
    """True if an error comes out of a call of MLflow, and not from code of ours."""
    modules = [
        str(frame.f_globals.get("__name__", "")).partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    ours = max((i for i, name in enumerate(modules) if name == "hpsearch"), default=-1)
    return modules[ours + 1 : ours + 2] == ["mlflow"]


def is_not_found(error: "TrackingError") -> bool:
    """Return whether an error means that a model, version or alias does not exist."""
    return error.error_code in NOT_FOUND_CODES


def first_error_line(error: Exception) -> str:
    """First line of an error of MLflow or its database, without SQL and stack trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = next(
        (line for line in lines if DATABASE_ERROR.match(line)), lines[0] if lines else ""
    )
    return redacted(DATABASE_ERROR.sub("", message))[:200] or type(error).__name__


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

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def check_experiment(self) -> None:
        """Check before any training that runs can be written to the experiment.

        A server that does not answer is no error here: training does not need it.

        Raises:
            UserError: if the experiment was deleted.
        """
        try:
            found = self.client().get_experiment_by_name(self.experiment)
        except Exception:  # whatever it is, sending the runs meets and reports it
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
