"""Passwords in addresses: removed from output, rejected in stored addresses.

A stored address names an environment variable instead of its password,
``postgresql://ann:$DB_PASSWORD@host/db``; ``filled_in`` looks the variable up at each use.
"""

import os
import re
from collections.abc import Iterator
from re import Match
from urllib.parse import quote, unquote

from hpsearch.errors import UserError

VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
DATABASE = r"(?:postgres|mysql|mariadb|mssql|oracle|redis|mongodb|clickhouse)[\w+.-]*://"
SERVER = r"[a-z][\w+.-]*:/(?:/|(?=[^\s:/?#@]+:[^\s/@]+@))"
"""As one slash it is an address that was taken for a path."""
USER_INFO = re.compile(
    rf"(?i)(?P<scheme>{DATABASE})(?P<info>[^\s:/?#@]*:\S*|[^\s/?#]*)@|"
    rf"(?P<scheme2>{SERVER})(?P<info2>[^\s:/?#@]*:(?!\d*[/?#])\S*|[^\s/?#]*)@"
)
"""User and password up to the last ``@``. A database's client takes a ``/`` or ``?`` before that as
part of the password; so does this for servers, unless what follows the colon is a port."""
PARAMETER = re.compile(r"(?:(?<=[?&;#\s])|^)([\w.%~-]{1,80})=")
VALUE = re.compile(r"([^&\s]*?)(?=[)\]}>'\",.;:]*(?:[&\s]|$))&?")
SECRET = re.compile(
    r"(?i)passw(or)?d|passphrase|pwd|secret|credential|(^|[_.-])pass$|token$|"
    r"api[_.-]?key|access[_.-]?key|signature$|^sig$|^auth$|authorization"
)
"""Names of parameters of an address whose value is a password."""
IN_ODBC = re.compile(r"(?i)(?:^|;)\s*(?:pwd|password)\s*=")


def redacted(text: str) -> str:
    """Text with users and passwords removed from the addresses in it.

    A variable instead of a password (``ann:$NAME@host``) is kept.

    Example:
        >>> redacted("postgresql://ann:s3cret@db.example.org/study")
        'postgresql://db.example.org/study'
    """
    return _without_parameters(USER_INFO.sub(_without_user, text))


def holds_password(text: str) -> bool:
    """Return True if an address in the text contains a literal password."""
    for match in USER_INFO.finditer(text):
        password = _user_info(match).partition(":")[2]
        if password and not VARIABLE.fullmatch(password):
            return True
    rest = USER_INFO.sub("//", text)
    return next(_secret_parameters(rest), None) is not None


def refuse_password(address: str | None, option: str) -> None:
    """Check that an address can be stored in a file.

    Args:
        address: the address; None is accepted.
        option: name of the command-line option in the error message, such as ``--study``.

    Raises:
        UserError: if it contains a password, which the message does not repeat.
    """
    if address is not None and holds_password(address):
        raise UserError(
            f"{option} contains a password, which would be stored in files; export it as an "
            "environment variable and give the name of the variable instead, in single quotes: 'SCHEME://USER:$NAME@HOST'"
        )


def filled_in(address: str) -> str:
    """Address with its environment variables substituted.

    A value used as user, password or parameter is percent-encoded unless it already is.

    Raises:
        UserError: if a variable used as user, password or parameter is not set.
    """
    return VARIABLE.sub(_value, address)


def _value(match: Match[str]) -> str:
    name, text = match[1] or match[2], match.string
    before, after = text[: match.start()], text[match.end() :]
    is_whole = (not before or before[-1] in "/:=@") and (not after or after[0] in "@:/?&")
    value = os.environ.get(name)
    if value is None:
        if not is_whole:
            return match[0]
        raise UserError(
            f"{redacted(text)} names the environment variable {name}, which is not set; export it"
        )
    in_user = after.startswith("@") or (before.endswith("//") and "@" in after)
    if is_whole and (in_user or before.endswith("=")):
        encoded = re.fullmatch(r"(?:[\w.~!$'()*+,;-]|%[0-9A-Fa-f]{2})*", value, re.ASCII)
        return value if encoded else quote(value, safe="")
    return value


def _user_info(match: Match[str]) -> str:
    return match["info"] if match["info"] is not None else match["info2"]


def _without_user(match: Match[str]) -> str:
    info = _user_info(match)
    user, colon, password = info.partition(":")
    if VARIABLE.fullmatch(password if colon else user):
        return match[0]
    return match["scheme"] or match["scheme2"]


def _secret_parameters(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each parameter with a password, including a ``&`` after it."""
    at = 0
    while name := PARAMETER.search(text, at):
        value = VALUE.match(text, name.end())
        if value and _is_secret(unquote(name[1]), value[1]):
            yield name.start(), value.end()
            at = value.end()
        else:
            at = name.end()  # the value may contain an address


def _without_parameters(text: str) -> str:
    kept, at = "", 0
    for start, end in _secret_parameters(text):
        kept += text[at:start]
        if text[end - 1] != "&" and kept.endswith(("?", "&", ";", "#")):
            kept = kept[:-1]
        at = end
    return kept + text[at:]


def _is_secret(name: str, value: str) -> bool:
    if name.lower() == "odbc_connect":
        return IN_ODBC.search(unquote(value.replace("+", " "))) is not None
    return bool(value) and not VARIABLE.fullmatch(value) and SECRET.search(name) is not None
