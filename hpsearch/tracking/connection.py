"""Connection to MLflow: address, credentials, and errors in plain sentences."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

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
    """The address without user and password, which go where MLflow's clients look for them.

    A database that has no such place keeps them, and so they must never be written:
    ``redacted`` before that.
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
"""What a tracking server that refuses or does not answer raises."""
NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that there is no such model, version or alias."""
ACCESS_DENIED_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED")
UNAUTHORIZED = re.compile(r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED|password authentic")
UNREACHABLE = re.compile(r"Connection|Max retries|timed out|resolve|Failed to establish")
SERVER_ERROR = re.compile(r"too many (5\d\d) error responses|failed with error code (5\d\d)")
NOT_MLFLOW = re.compile(r"failed with error code 4\d\d|Expecting value|JSONDecode|not.*valid JSON")
DISK_FULL = re.compile("|".join(("disk is full", *DISK_FULL_MESSAGES)))
DATABASE_ERROR = re.compile(r"^\((?:sqlite3|psycopg2?)\.\S+\) ")
ADDRESS_HINT = "correct --tracking-uri or MLFLOW_TRACKING_URI"


PROGRAMMING_ERRORS = (KeyError, AttributeError, TypeError)
"""Errors that MLflow's client raises at an answer which is not MLflow's, and a bug of ours too."""


class MlflowUnavailableError(UserError):
    """MLflow refuses, or does not answer."""


@contextmanager
def translate_mlflow_errors(uri: str) -> Iterator[None]:
    """Talk to MLflow at ``uri``, in the middle of other work.

    Raises:
        MlflowUnavailableError: if it refuses or does not answer.
    """
    try:
        yield
    except (MlflowException, OSError, ImportError) as error:
        raise MlflowUnavailableError(format_error(error, uri)) from error


@contextmanager
def translate_all_errors(uri: str) -> Iterator[None]:
    """Talk to MLflow at ``uri``, and do nothing else: whatever goes wrong is its fault.

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
        raise MlflowUnavailableError(format_error(error, uri)) from error


def format_error(error: Exception, uri: str) -> str:
    """What is wrong with MLflow at ``uri``, and how to mend it."""
    message = redacted(" ".join(str(error).split()))
    where, code = redacted(uri), getattr(error, "error_code", "")
    if UNAUTHORIZED.search(message):
        return (
            f"MLflow at {where} refuses these credentials; set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or ask for permission"
        )
    if (
        code in ACCESS_DENIED_CODES
        or "readonly database" in message
        or isinstance(error, PermissionError)
    ):
        return f"MLflow at {where} refuses you ({first_error_line(error)}); ask for permission"
    if DISK_FULL.search(message):
        return f"MLflow at {where} finds its disk full; make room there"
    if isinstance(error, ImportError):
        return f"{where} needs a database driver: {message}; install it, or {ADDRESS_HINT}"
    if troubled := SERVER_ERROR.search(message):
        code = troubled[1] or troubled[2]
        return f"MLflow at {where} answers {code} and nothing else; look into its log"
    if isinstance(error, PROGRAMMING_ERRORS) and not is_raised_by_mlflow(error):
        return f"hpsearch itself failed ({type(error).__name__}: {message}); report this as a bug"
    if NOT_MLFLOW.search(message) or isinstance(error, PROGRAMMING_ERRORS):
        return f"what answers at {where} is not MLflow; {ADDRESS_HINT}"
    if code in NOT_FOUND_CODES:
        return (
            f"MLflow at {where} has no such thing ({first_error_line(error)}); look: `hpsearch ui`"
        )
    if UNREACHABLE.search(message):
        return f"MLflow at {where} does not answer; start it, or {ADDRESS_HINT}"
    return f"MLflow at {where} says: {message[:300].rstrip('. ')}; {ADDRESS_HINT}"


def is_raised_by_mlflow(error: BaseException) -> bool:
    """Whether an error comes out of a call of MLflow, and not from code of ours."""
    modules = [
        str(frame.f_globals.get("__name__", "")).partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    ours = max((i for i, name in enumerate(modules) if name == "hpsearch"), default=-1)
    return modules[ours + 1 : ours + 2] == ["mlflow"]


def is_not_found(error: MlflowException) -> bool:
    """Whether there is no such model, version or alias."""
    return error.error_code in NOT_FOUND_CODES


def first_error_line(error: Exception) -> str:
    """What MLflow says, without the SQL or the stack that follows; the database's own words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = next(
        (line for line in lines if DATABASE_ERROR.match(line)), lines[0] if lines else ""
    )
    return redacted(DATABASE_ERROR.sub("", message))[:200] or type(error).__name__


DATABASE_SCHEMES = ("sqlite:", "postgres", "mysql", "mssql")


@dataclass(frozen=True, kw_only=True)
class TrackingServer:
    """Where runs go."""

    uri: str = field(repr=False)
    given: str = field(default="", repr=False)
    """The address as it may be kept: with the names of environment variables that stand in it."""
    artifact_root: str | None = None
    """Artifact location for a new experiment; None lets the server decide."""
    experiment: str = EXPERIMENT
    home: Path | None = None
    """The home that it belongs to, if that is known."""
    former: tuple[Path, ...] = ()
    """Where that home lay before it was moved."""

    @property
    def display_uri(self) -> str:
        """The address as it may be printed and written."""
        return redacted(self.uri)

    @property
    def recorded(self) -> str:
        """The address as it is written down in its home."""
        if self.home is None or is_server(self.uri):
            return self.display_uri
        return recorded(self.display_uri, self.home)

    def renamed(self, address: str) -> str:
        """What an address that was written down in this home is called today.

        0.1.0 wrote down absolute paths of databases, also of those in the home.
        """
        if self.home is None or is_server(address) or located(address, self.home) != address:
            return address
        return recorded(moved(address, self.home, self.former), self.home)

    def client(self) -> MlflowClient:
        """A client of the tracking server and of the registry behind it."""
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment_id(self) -> str:
        """Id of the experiment, which is made if there is none."""
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
            return made.experiment_id  # somebody else was first


def resolve_tracking(uri: str, home: Path) -> TrackingServer:
    """MLflow at an address, with files in the home folder if it is a database.

    Raises:
        UserError: if it is no address of a server or a database, names an environment variable
            that is not set, or is one of SQLite in a folder that does not exist.
    """
    given, uri = uri, filled_in(uri)
    if not (is_server(uri) or uri.startswith(DATABASE_SCHEMES)):
        raise UserError(
            f"{redacted(uri)!r} is no tracking URI; write http://HOST:PORT, "
            "or a database such as sqlite:////PATH/mlflow.db"
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
    """Put the database right if its home was moved; make no folder where there was a database."""
    database = database_path(uri)
    if database is None:
        return
    if not database.parent.is_dir():
        raise UserError(
            f"there is no folder {database.parent} for MLflow's database; make it, or give the "
            "address of another with --tracking-uri"
        )
    if inside_of(database, home):
        relocate(database, home)
