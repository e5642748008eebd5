"""Passwords in addresses: cut out of what is shown, and refused in what is kept.

An address that is kept names an environment variable in the place of its password,
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
    """An address, or any text with addresses in it, without users and passwords.

    A variable in the place of a password (``ann:$NAME@host``) stays.
    """
    return _without_parameters(USER_INFO.sub(_without_user, text))


def holds_password(text: str) -> bool:
    """Whether an address, or any text with addresses in it, holds a password outright."""
    for match in USER_INFO.finditer(text):
        password = _user_info(match).partition(":")[2]
        if password and not VARIABLE.fullmatch(password):
            return True
    rest = USER_INFO.sub("//", text)
    return next(_secret_parameters(rest), None) is not None


def refuse_password(address: str | None, option: str) -> None:
    """Make sure that an address can be kept in a file.

    Args:
        address: None is none.
        option: how the user gave it, as ``--study``.

    Raises:
        UserError: if it holds a password; it is not repeated.
    """
    if address is not None and holds_password(address):
        raise UserError(
            f"{option} holds a password, which would be kept in files; export it as an environment "
            "variable and name that in its place, in single quotes: 'SCHEME://USER:$NAME@HOST'"
        )


def filled_in(address: str) -> str:
    """The address with the values of the environment variables that it names.

    In the place of a user, password or parameter, a value that is not percent-encoded becomes so.

    Raises:
        UserError: if a variable that stands in one of these places is not set.
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
    """Where parameters that hold a password begin and end, a ``&`` behind them included."""
    at = 0
    while name := PARAMETER.search(text, at):
        value = VALUE.match(text, name.end())
        if value and _is_secret(unquote(name[1]), value[1]):
            yield name.start(), value.end()
            at = value.end()
        else:
            at = name.end()  # there may be an address in its value


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
