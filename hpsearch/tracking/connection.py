"""Connection to MLflow: address, credentials, and translation of errors."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hpsearch.atomic_files import DISK_FULL_MESSAGES, make_private
from hpsearch.errors import UserError
from hpsearch.locations import database_path, inside_of, located, moved, recorded
from hpsearch.redaction import filled_in, redacted
from hpsearch.tracking.mlflow_tags import EXPERIMENT, artifact_location, is_server
from hpsearch.tracking.relocation import former_homes, relocate

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


TrackingError = MlflowException
"""Error of MLflow's client when the server refuses a request or does not answer."""
NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a model, version or alias that does not exist."""
ACCESS_DENIED_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED")
UNAUTHORIZED = re.compile(r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED|password authentic")
UNREACHABLE = re.compile(r"Connection|Max retries|timed out|resolve|Failed to establish")
SERVER_ERROR = re.compile(r"too many (5\d\d) error responses|failed with error code (5\d\d)")
NOT_MLFLOW = re.compile(r"failed with error code 4\d\d|Expecting value|JSONDecode|not.*valid JSON")
OTHER_SCHEMA = re.compile(r"out-of-date database schema \(found version (\w+)")
DISK_FULL = re.compile("|".join(("disk is full", *DISK_FULL_MESSAGES)))
DATABASE_ERROR = re.compile(r"^\((?:sqlite3|psycopg2?)\.\S+\) ")
ADDRESS_HINT = "correct --tracking-uri or MLFLOW_TRACKING_URI"


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
    try:
        yield
    except (MlflowException, OSError, ImportError) as error:
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
    if DISK_FULL.search(message):
        return "mlflow-disk-full", (
            f"MLflow at {where} reported a full disk; free some space on the server"
        )
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


def is_not_found(error: MlflowException) -> bool:
    """Return whether an error means that a model, version or alias does not exist."""
    return error.error_code in NOT_FOUND_CODES


def first_error_line(error: Exception) -> str:
    """First line of an error of MLflow or its database, without SQL and stack trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = next(
        (line for line in lines if DATABASE_ERROR.match(line)), lines[0] if lines else ""
    )
    return redacted(DATABASE_ERROR.sub("", message))[:200] or type(error).__name__


DATABASE_SCHEMES = ("sqlite:", "postgres", "mysql", "mssql")


@dataclass(frozen=True, kw_only=True)
class TrackingServer:
    """MLflow server or database that runs are written to."""

    uri: str = field(repr=False)
    given: str = field(default="", repr=False)
    """Address as the user gave it; environment variables in it are not replaced."""
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

    def client(self) -> MlflowClient:
        """Create a client of the tracking server and its registry."""
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment_id(self) -> str:
        """Id of the experiment, which is created if it does not exist."""
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


def resolve_tracking(uri: str, home: Path) -> TrackingServer:
    """Resolve an MLflow address; artifacts go to the home folder if it is a database.

    Raises:
        UserError: if it is not an address of a server or a database, names an environment
            variable that is not set, or is an SQLite file in a folder that does not exist.
    """
    given, uri = uri, filled_in(uri)
    if not (is_server(uri) or uri.startswith(DATABASE_SCHEMES)):
        raise UserError(
            f"{redacted(uri)!r} is not a tracking URI; write http://HOST:PORT, "
            "or a database such as sqlite:////PATH/mlflow.db",
            code="invalid-tracking-uri",
        )
    if uri.startswith("sqlite:"):
        make_private(home)
        _settle(uri, home)
    bare = move_credentials_to_env(uri)
    return TrackingServer(
        uri=bare,
        given=bare if given == uri else given,
        artifact_root=artifact_location(uri, home),
        home=home,
        former=former_homes(home),
    )


def _settle(uri: str, home: Path) -> None:
    """Relocate the database if its home was moved; a missing folder of a database is an error."""
    database = database_path(uri)
    if database is None:
        return
    if not database.parent.is_dir():
        raise UserError(
            f"there is no folder {database.parent} for MLflow's database; create it, or give the "
            "address of another with --tracking-uri"
        )
    if inside_of(database, home):
        relocate(database, home)
