"""Errors of MLflow as sentences: their kinds, codes and remedies."""

import re
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpsearch.atomic_files import DISK_FULL_MESSAGES
from hpsearch.errors import UserError
from hpsearch.host_limits import proxy_hint
from hpsearch.redaction import redacted

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException as TrackingError


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
LOCKED_CODE = "mlflow-locked"
LOCKED_SENTENCE = (
    "the database of MLflow at {} is locked by another process; try again once that has ended"
)
STORAGE_ERRORS = (
    (
        re.compile("|".join(("disk is full", *DISK_FULL_MESSAGES))),
        "mlflow-disk-full",
        "MLflow at {} reported a full disk; free some space on the server",
    ),
    (
        re.compile(r"database (table )?is locked"),
        LOCKED_CODE,
        LOCKED_SENTENCE,
    ),
)
"""Errors of MLflow's storage: pattern of the message, code, and sentence."""
DATABASE_ERROR = re.compile(r"^\((?:sqlite3|psycopg2?)\.\S+\) ")
TRANSIENT_CODES = frozenset({LOCKED_CODE, "mlflow-server-error", "mlflow-unreachable"})
"""Codes of errors that may be gone at the next attempt."""
PROXY_CODES = frozenset(
    {"mlflow-unreachable", "mlflow-server-error", "mlflow-credentials", "not-mlflow"}
)
"""Codes of errors that a proxy before the server may cause."""
ADDRESS_HINT = "correct --tracking-uri or MLFLOW_TRACKING_URI"


PROGRAMMING_ERRORS = (KeyError, AttributeError, TypeError)
"""Errors that MLflow's client raises at an answer which is not MLflow's, and a bug of ours too."""


class MlflowUnavailableError(UserError):
    """Error of an MLflow server that refuses a request or does not answer."""

    default_code = "mlflow-unavailable"


def locked_error(uri: str) -> MlflowUnavailableError:
    """Error of an SQLite database that another process keeps locked."""
    return MlflowUnavailableError(LOCKED_SENTENCE.format(redacted(uri)), code=LOCKED_CODE)


@contextmanager
def translate_mlflow_errors(uri: str) -> Iterator[None]:
    """Translate errors of MLflow at ``uri`` within code that also does other work.

    Raises:
        MlflowUnavailableError: if it refuses or does not answer.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
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
    if schema:
        return _other_schema(redacted(uri), schema[1])
    code, sentence = _classify_failure(error, uri)
    return code, sentence + (proxy_hint(uri) if code in PROXY_CODES else "")


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
    import mlflow

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
