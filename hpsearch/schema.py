"""Schema version of the files that hpsearch writes; files of newer versions are rejected."""

import json
from collections.abc import Mapping
from typing import Any

from hpsearch.errors import UserError

SCHEMA_VERSION = 2
"""Version of the files written now; files of hpsearch 0.1.0 are version 1, without a number."""
KEY = "schema_version"


class NewerSchema(UserError):
    """Error for a file written by a newer hpsearch, as opposed to a damaged one."""

    default_code = "newer-schema"


def stamped(content: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a file with the schema version added."""
    return {KEY: SCHEMA_VERSION, **content}


def unstamped(content: Mapping[str, Any], source: object) -> dict[str, Any]:
    """Content of a file without its schema version, which is checked first.

    Args:
        content: the content as read; without a version it was written by 0.1.0.
        source: name of the file in error messages.

    Raises:
        NewerSchema: if a newer hpsearch wrote it.
    """
    refuse_newer(content, source)
    return {key: value for key, value in content.items() if key != KEY}


def refuse_newer(content: Mapping[str, Any], source: object) -> None:
    """Check that this version can read a file; arguments as of ``unstamped``.

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
    """Text of a JSON file with the schema version added."""
    return json.dumps(stamped(content), indent=indent)


def from_json(text: str | bytes, source: object) -> dict[str, Any]:
    """Content of a JSON file without the schema version; arguments and errors as of ``parsed``."""
    return unstamped(parsed(text, source), source)


def parsed(text: str | bytes, source: object) -> dict[str, Any]:
    """Content of a JSON file including its schema version; ``source`` as of ``unstamped``.

    Raises:
        NewerSchema: if a newer hpsearch wrote it.
        UserError: if it is not a JSON object.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{source} is damaged ({error}); restore it from a copy") from error
    if not isinstance(content, dict):
        raise UserError(f"{source} is damaged: it contains no JSON object; restore it from a copy")
    refuse_newer(content, source)
    return content
