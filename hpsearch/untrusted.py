"""Names, files and words that somebody else may have written."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from hpsearch.errors import UserError
from hpsearch.redaction import redacted

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LONGEST_REASON = 200
LONGEST_INPUT = 200
"""Characters of a wrong setting that are repeated."""
IN_MARKDOWN = re.compile(r"([\\`*_\[\]<>|!])")


def check_name(name: str, what: str) -> str:
    """The name, if it can be one.

    Args:
        name: of a folder, a job and a tag.
        what: it is to name, as in ``a search``.

    Raises:
        UserError: if it holds anything but letters, digits, ``-``, ``_`` and ``.``, begins with
            ``-`` or ``.``, or is too long.
    """
    if NAME.fullmatch(name) is None:
        shown = repr(name[:60]) + ("…" if len(name) > 60 else "")
        raise UserError(
            f"{shown} cannot name {what}; use up to 100 letters (a to z), digits, -, _ and ., "
            "and begin with a letter, a digit or _"
        )
    return name


def name_from(stem: str) -> str:
    """A file's name without its suffix, with ``-`` in place of what no name may hold."""
    found = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:80]
    return found or "search"


@contextmanager
def reading(path: Path | str, what: str, remedy: str) -> Iterator[None]:
    """Read a file that anybody may have written; whatever a reader stumbles over is its damage.

    Args:
        path: of the file.
        what: it should be, as in ``event log``.
        remedy: what the user can do.

    Raises:
        UserError: naming the file, why it cannot be used, and the remedy.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a reader of crafted bytes may raise anything
        raise UserError(f"{path} is no usable {what} ({reason(error)}); {remedy}") from error


def reason(error: BaseException) -> str:
    """What an error says, in one printable line without passwords."""
    words = " ".join(str(error).split())
    if isinstance(error, (KeyError, IndexError, AssertionError, AttributeError)) or not words:
        words = f"{type(error).__name__} {words}".strip()
    return printable(redacted(words))[:LONGEST_REASON].rstrip(". ")


def printable(text: str) -> str:
    """The text on one line, without characters that command a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def markdown_text(words: str) -> str:
    """Words that Markdown shows as they are: no HTML, link, picture or table in them."""
    return IN_MARKDOWN.sub(r"\\\1", printable(words)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def validation_sentence(error: ValidationError) -> str:
    """A pydantic error as one sentence that names the first setting that is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or error.title
    if first["type"] == "extra_forbidden":
        return f"there is no setting {where!r}; remove it or correct its name"
    cause = first.get("ctx", {}).get("error")
    if not first["loc"] and cause is not None:
        return str(cause)  # of a check of ours over several settings
    got = repr(first.get("input"))
    got = got if len(got) <= LONGEST_INPUT else f"{got[:LONGEST_INPUT]} …"
    return f"setting {where!r} is wrong: {first['msg']} (got {got})"
