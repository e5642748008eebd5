"""The version of what hpsearch writes to disk, and the refusal of what a newer one has written."""

import json
from collections.abc import Mapping
from typing import Any

from hpsearch.errors import UserError

SCHEMA_VERSION = 2
"""Version of every file written today. 1 is hpsearch 0.1.0, whose files do not name it."""
KEY = "schema_version"


class NewerSchema(UserError):
    """Error for a file that a newer hpsearch has written, as opposed to a damaged one."""

    default_code = "newer-schema"


def stamped(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the version to the content of a file."""
    return {KEY: SCHEMA_VERSION, **content}


def unstamped(content: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Remove the version from the content of a file, once it has been checked.

    Args:
        content: as read; without a version it is of 0.1.0.
        source: what to call the file in a message.

    Raises:
        NewerSchema: if a newer hpsearch wrote it.
    """
    refuse_newer(content, source)
    return {key: value for key, value in content.items() if key != KEY}


def refuse_newer(content: Mapping[str, Any], source: object) -> None:
    """Make sure that this version knows how to read a file; arguments as of ``unstamped``.

    Raises:
        NewerSchema: if a newer hpsearch wrote it.
    """
    found = content.get(KEY, 1)
    if not (isinstance(found, int) and found <= SCHEMA_VERSION):
        raise NewerSchema(
            f"{source} was written by a newer hpsearch (schema version {found}; this one reads up "
            f"to {SCHEMA_VERSION}); update hpsearch"
        )


def to_json(content: Mapping[str, Any], *, indent: int | None = None) -> str:
    """The text of a JSON file, with the version in it."""
    return json.dumps(stamped(content), indent=indent)


def from_json(text: str | bytes, source: object) -> dict[str, Any]:
    """The content of a JSON file, without the version; arguments and errors as of ``parsed``."""
    return unstamped(parsed(text, source), source)


def parsed(text: str | bytes, source: object) -> dict[str, Any]:
    """The content of a JSON file, with the version that it names; ``source`` as of ``unstamped``.

    Raises:
        NewerSchema: if a newer hpsearch wrote it.
        UserError: if it is no JSON object.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source} is damaged ({error}); restore it from a copy") from error
    if not isinstance(content, dict):
        raise UserError(f"{source} is damaged: it holds no JSON object; restore it from a copy")
    refuse_newer(content, source)
    return content
