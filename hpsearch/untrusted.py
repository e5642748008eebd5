"""Checks of names, files and texts from untrusted sources."""

import re
import shlex
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hpsearch.errors import UserError
from hpsearch.redaction import redacted

if TYPE_CHECKING:
    import numpy as np

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LONGEST_REASON = 200
LONGEST_INPUT = 200
"""Length to which a wrong setting is shortened in an error message."""
CLUTTER = (".DS_Store", "Thumbs.db", "desktop.ini")
LIBRARIES = (str(Path(__file__).parent), *set(sysconfig.get_paths().values()) - {""}, "<")
"""Beginnings of the paths of code that no user of a space file wrote."""
PACKAGE_FOLDERS = frozenset(("site-packages", "dist-packages"))
"""Names of folders of installed packages, also of another environment that this one includes."""
NPY_MAGIC = b"\x93NUMPY"
"""First bytes of a .npy file."""
IN_MARKDOWN = re.compile(r"([\\`*_\[\]<>|!])")


def is_of_library(file: str | Path) -> bool:
    """Return whether a file of code belongs to Python, to hpsearch or to an installed package.

    Example:
        >>> is_of_library("/usr/lib/python3/dist-packages/scipy/__init__.py")
        True
        >>> is_of_library("/home/me/project/losses.py")
        False
    """
    return str(file).startswith(LIBRARIES) or not PACKAGE_FOLDERS.isdisjoint(Path(file).parts)


def check_name(name: str, what: str) -> str:
    """Check that a name can be used for a folder, a job and a tag, and return it.

    Args:
        name: the name.
        what: the named thing in the error message, such as ``a search``.

    Raises:
        UserError: if it contains anything but letters, digits, ``-``, ``_`` and ``.``, begins with
            ``-`` or ``.``, or is too long.

    Example:
        >>> check_name("hard-margin.2", "a search")
        'hard-margin.2'
    """
    if NAME.fullmatch(name) is None:
        shown = repr(name[:60]) + ("…" if len(name) > 60 else "")
        raise UserError(
            f"{shown} cannot name {what}; use up to 100 letters (a to z), digits, -, _ and ., "
            "and begin with a letter, a digit or _"
        )
    return name


def name_from(stem: str) -> str:
    """Stem of a file name with ``-`` for each character that a name may not contain."""
    found = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:80]
    return found or "search"


@contextmanager
def reading(path: Path | str, what: str, remedy: str) -> Iterator[None]:
    """Read an untrusted file inside the block; any error of the reader becomes a ``UserError``.

    Args:
        path: path of the file.
        what: expected kind of file, such as ``event log``.
        remedy: advice to the user in the error message.

    Raises:
        UserError: naming the file, the cause, and the remedy.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a reader of crafted bytes may raise anything
        raise UserError(f"{path} is not a usable {what} ({reason(error)}); {remedy}") from error


def check_is_file(path: Path) -> None:
    """Check that there is a file.

    Raises:
        UserError: if there is nothing, or a folder.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder, and a file is needed; check the path", code="no-file")
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path", code="no-file")


def load_npy(path: Path, remedy: str) -> "np.ndarray[Any, Any]":
    """Array of a .npy file, read from disk where it is used; no pickle is loaded.

    Args:
        path: path of the file.
        remedy: advice to the user in the error message.

    Raises:
        UserError: if the file is missing, is no .npy file, is damaged, or holds objects.
    """
    import numpy as np

    check_is_file(path)
    with reading(path, ".npy file", remedy):
        with path.open("rb") as file:
            if file.read(len(NPY_MAGIC)) != NPY_MAGIC:
                raise UserError(f"{path} is not a .npy file; {remedy}", code="unreadable-array")
        return np.load(path, mmap_mode="r", allow_pickle=False)


def reason(error: BaseException) -> str:
    """Message of an error as one printable line without passwords."""
    message = " ".join(str(error).split())
    if isinstance(error, (KeyError, IndexError, AssertionError, AttributeError)) or not message:
        message = f"{type(error).__name__} {message}".strip()
    return printable(redacted(message))[:LONGEST_REASON].rstrip(". ")


def is_clutter(path: Path) -> bool:
    """Return whether a path is what macOS or Windows adds to archives and folders.

    Example:
        >>> [is_clutter(Path(name)) for name in ("__MACOSX/v_a", "v_a/._ref.png", "v_a/ref.png")]
        [True, True, False]
    """
    return "__MACOSX" in path.parts or path.name.startswith("._") or path.name in CLUTTER


def command_line(*words: object) -> str:
    """Command of hpsearch that a user can copy into a shell, with quotes where one needs them.

    Example:
        >>> command_line("report", "far", "--home", "my runs")
        "hpsearch report far --home 'my runs'"
    """
    return shlex.join(["hpsearch", *map(str, words)])


def user_location(error: BaseException) -> str:
    """``FILE:LINE`` in the user's own code that an error comes from; empty if it is elsewhere."""
    lines = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        lines.append((error.filename or "<", error.lineno))
    own = [(Path(file).name, line) for file, line in lines if not is_of_library(file)]
    return f"{own[-1][0]}:{own[-1][1]}" if own else ""


def printable(text: str) -> str:
    """Text on one line, without control characters."""
    return "".join(char if char.isprintable() else " " for char in text)


def markdown_text(text: str) -> str:
    """Text escaped for Markdown: no HTML, links, pictures or tables take effect."""
    return IN_MARKDOWN.sub(r"\\\1", printable(text)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def validation_sentence(error: ValidationError) -> str:
    """Pydantic error as one sentence that names the first invalid setting."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or error.title
    if first["type"] == "extra_forbidden":
        return f"there is no setting {where!r}; remove it or correct its name"
    cause = first.get("ctx", {}).get("error")
    if not first["loc"] and cause is not None:
        return str(cause)  # error of a validator over several settings
    got = repr(first.get("input"))
    got = got if len(got) <= LONGEST_INPUT else f"{got[:LONGEST_INPUT]} …"
    return f"setting {where!r} is wrong: {first['msg']} (got {got})"
