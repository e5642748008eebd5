"""What MLflow raises, as one sentence that says how to mend it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from hpsearch.errors import UserError
from hpsearch.tracking.credentials import without_credentials

ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that there is no such model, version or alias."""

SILENT = re.compile(r"Max retries exceeded|timed out|Connection refused")
DATABASE = re.compile(r"^\((?:sqlite3|psycopg2?)\.\S+\) ")


class RegistryError(UserError):
    """The registry refuses, or does not answer."""


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """Talk to the registry at ``uri``.

    Raises:
        RegistryError: if it refuses or does not answer.
    """
    try:
        yield
    except (MlflowException, OSError) as error:
        raise RegistryError(_explained(error, without_credentials(uri))) from error


def absent(error: MlflowException) -> bool:
    """Whether there is no such model, version or alias."""
    return error.error_code in ABSENT


def first_line(error: Exception) -> str:
    """What MLflow says, without the SQL or the stack that follows; the database's own words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if DATABASE.match(line)), lines[0] if lines else "")
    return without_credentials(DATABASE.sub("", said))[:200] or type(error).__name__


def _explained(error: Exception, where: str) -> str:
    said, code = first_line(error), getattr(error, "error_code", "")
    refused = code in ("PERMISSION_DENIED", "UNAUTHENTICATED") or "readonly database" in said
    if refused or isinstance(error, PermissionError):
        return (
            f"the registry at {where} refuses you ({said}); ask for permission, or name another "
            "with --tracking-uri, then give the same command again"
        )
    if code in ABSENT:
        return f"the registry at {where} has lost what it had ({said}); look with `hpsearch ui`"
    why = "" if SILENT.search(str(error)) else f" as it should ({said})"
    return (
        f"the registry at {where} does not answer{why}; start it, or name another with "
        "--tracking-uri, then give the same command again"
    )
