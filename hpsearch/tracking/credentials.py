"""Passwords in addresses: taken out before an address is written, shown or kept.

``http://user:password@host`` and ``postgresql://user:password@host/mlflow`` are how people have
such addresses at hand. What follows the ``//`` goes where the clients of both look for it, into the
environment of this process, and the address without it is all that the rest of the code knows.
"""

import os
import re
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from hpsearch.tracking.names import is_server

MLFLOW = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
POSTGRESQL = ("PGUSER", "PGPASSWORD")
IN_ADDRESS = re.compile(r"(?<=://)[^/@\s'\"]+@")
IN_QUERY = re.compile(r"(?i)(?<=[?&])(password|passwd|token)=[^&\s'\"]*&?")
VARIABLE = r"\$(\w+|\{\w+\})"
PASSWORD = re.compile(
    rf"://[^/@:\s'\"]*:(?!{VARIABLE}@)[^/\s'\"]+@|"
    rf"[?&](?i:password|passwd|token)=(?!{VARIABLE}(&|$))[^&\s]"
)
"""As ``$NAME`` it is none: somebody fills it in later."""


def without_credentials(text: str) -> str:
    """An address, or any text with addresses in it, without users and passwords."""
    return IN_QUERY.sub("", IN_ADDRESS.sub("", text)).rstrip("?&")


def holds_password(text: str) -> bool:
    """Whether an address, or any text with addresses in it, holds a password outright."""
    return PASSWORD.search(text) is not None


def take_credentials(uri: str) -> str:
    """The address without user and password, which go where MLflow's clients look for them.

    A database that has no such place keeps them, and so they must never be written:
    ``without_credentials`` before that.
    """
    parts = urlsplit(uri)
    names = _places(parts)
    if names is None or not (parts.username or parts.password):
        return uri
    for name, value in zip(names, (parts.username, parts.password), strict=True):
        if value:
            os.environ[name] = unquote(value)
    bare = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=bare))


def _places(parts: SplitResult) -> tuple[str, str] | None:
    """Names of the variables that the client of such an address reads."""
    if is_server(f"{parts.scheme}://"):
        return MLFLOW
    return POSTGRESQL if parts.scheme.startswith("postgres") else None
