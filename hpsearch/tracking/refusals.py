"""What MLflow raises, as one sentence that says how to mend it, and no password in it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from hpsearch.errors import UserError
from hpsearch.files import FULL_WORDS
from hpsearch.tracking.credentials import without_credentials

TrackingError = MlflowException
"""What a tracking server that refuses or does not answer raises."""
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that there is no such model, version or alias."""
REFUSING = ("PERMISSION_DENIED", "UNAUTHENTICATED")
UNAUTHORISED = re.compile(r"\b(401|403)\b|UNAUTHENTICATED|PERMISSION_DENIED|password authentic")
SILENT = re.compile(r"Connection|Max retries|timed out|resolve|Failed to establish")
TROUBLED = re.compile(r"too many (5\d\d) error responses|failed with error code (5\d\d)")
STRANGER = re.compile(r"failed with error code 4\d\d|Expecting value|JSONDecode|not.*valid JSON")
FULL = re.compile("|".join(("disk is full", *FULL_WORDS)))
DATABASE = re.compile(r"^\((?:sqlite3|psycopg2?)\.\S+\) ")
MENDING = "correct --tracking-uri or MLFLOW_TRACKING_URI"


class Refused(UserError):
    """MLflow refuses, or does not answer."""


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """Talk to MLflow at ``uri``, in the middle of other work.

    Raises:
        Refused: if it refuses or does not answer.
    """
    try:
        yield
    except (MlflowException, OSError, ImportError) as error:
        raise Refused(sentence(error, uri)) from error


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Talk to MLflow at ``uri``, and do nothing else: whatever goes wrong is its fault.

    Raises:
        Refused: if it refuses, does not answer, or is not MLflow.
    """
    try:
        with reached(uri):
            yield
    except UserError:
        raise
    except (ValueError, KeyError) as error:
        raise Refused(sentence(error, uri)) from error


def sentence(error: Exception, uri: str) -> str:
    """What is wrong with MLflow at ``uri``, and how to mend it."""
    said = without_credentials(" ".join(str(error).split()))
    where, code = without_credentials(uri), getattr(error, "error_code", "")
    if UNAUTHORISED.search(said):
        return (
            f"MLflow at {where} refuses these credentials; set MLFLOW_TRACKING_USERNAME "
            "and MLFLOW_TRACKING_PASSWORD, or ask for permission"
        )
    if code in REFUSING or "readonly database" in said or isinstance(error, PermissionError):
        return f"MLflow at {where} refuses you ({first_line(error)}); ask for permission"
    if FULL.search(said):
        return f"MLflow at {where} finds its disk full; make room there"
    if isinstance(error, ImportError):
        return f"{where} needs a database driver: {said}; install it, or {MENDING}"
    if troubled := TROUBLED.search(said):
        code = troubled[1] or troubled[2]
        return f"MLflow at {where} answers {code} and nothing else; look into its log"
    if STRANGER.search(said) or isinstance(error, (KeyError, AttributeError, TypeError)):
        return f"what answers at {where} is not MLflow; {MENDING}"
    if code in ABSENT:
        return f"MLflow at {where} has no such thing ({first_line(error)}); look: `hpsearch ui`"
    if SILENT.search(said):
        return f"MLflow at {where} does not answer; start it, or {MENDING}"
    return f"MLflow at {where} says: {said[:300].rstrip('. ')}; {MENDING}"


def absent(error: MlflowException) -> bool:
    """Whether there is no such model, version or alias."""
    return error.error_code in ABSENT


def first_line(error: Exception) -> str:
    """What MLflow says, without the SQL or the stack that follows; the database's own words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if DATABASE.match(line)), lines[0] if lines else "")
    return without_credentials(DATABASE.sub("", said))[:200] or type(error).__name__
