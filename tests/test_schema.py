"""The version in every file: written, read, missing, newer, damaged."""

import json

import pytest

from hpsearch.errors import UserError
from hpsearch.schema import KEY, SCHEMA_VERSION, NewerSchema, from_json, stamped, to_json


def test_what_is_written_names_its_version_and_is_read_without_it() -> None:
    text = to_json({"a": [1, 2], "b": None})
    assert json.loads(text) == {"schema_version": SCHEMA_VERSION, "a": [1, 2], "b": None}
    assert from_json(text, "file") == {"a": [1, 2], "b": None}
    assert stamped({})[KEY] == SCHEMA_VERSION


def test_a_file_without_a_version_is_of_the_first() -> None:
    assert from_json('{"a": 1}', "file") == {"a": 1}


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 99, "3", None, 2.5])
def test_a_version_that_is_not_known_is_refused(version: object) -> None:
    with pytest.raises(NewerSchema, match=r"plan\.json was written by a newer hpsearch"):
        from_json(json.dumps({KEY: version}), "plan.json")


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", b"\xff"])
def test_what_is_no_json_object_is_damaged_and_not_newer(text: str | bytes) -> None:
    with pytest.raises(UserError, match=r"plan\.json is damaged") as caught:
        from_json(text, "plan.json")
    assert not isinstance(caught.value, NewerSchema)
