"""Codes of errors: of the class, of the instance, and after pickling by Ray."""

import errno
import os
import pickle

import pytest

from hpsearch.errors import UserError, file_error_sentence, list_names


class _WithDefault(UserError):
    default_code = "of-the-class"


def test_the_code_of_an_instance_replaces_that_of_its_class() -> None:
    assert UserError("x").code == "user-error"
    assert _WithDefault("x").code == "of-the-class"
    assert _WithDefault("x", code="of-the-instance").code == "of-the-instance"


def test_sentence_and_code_survive_pickling() -> None:
    found = pickle.loads(pickle.dumps(UserError("no search 'a'", code="no-such-search")))
    assert (str(found), found.code) == ("no search 'a'", "no-such-search")


def test_a_shortened_list_states_how_many_are_left_out() -> None:
    assert list_names("abc", limit=3) == "a, b, c"
    assert list_names("abcd", limit=3) == "a, b, c and 1 more"
    assert list_names(range(2_000), limit=1) == "0 and 1,999 more"
    assert list_names([], limit=3) == ""


@pytest.mark.parametrize("code", ["EACCES", "EROFS", "ENOENT", "ENOTDIR", "EISDIR", "ENAMETOOLONG"])
def test_an_error_of_a_path_is_a_sentence_that_names_it(code: str) -> None:
    number = getattr(errno, code)
    sentence = file_error_sentence(OSError(number, os.strerror(number), "/x/y"))
    assert sentence is not None
    assert "/x/y" in sentence
    assert os.strerror(number).lower() in sentence.lower()


def test_an_error_of_a_disk_needs_no_path_and_other_errors_stay_themselves() -> None:
    assert "free some space" in str(file_error_sentence(OSError(errno.ENOSPC, "full")))
    assert file_error_sentence(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None
    assert file_error_sentence(OSError("no code")) is None
