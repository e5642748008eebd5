"""Codes of errors: of the class, of the instance, and after pickling by Ray."""

import pickle

from hpsearch.errors import UserError


class _WithDefault(UserError):
    default_code = "of-the-class"


def test_the_code_of_an_instance_replaces_that_of_its_class() -> None:
    assert UserError("x").code == "user-error"
    assert _WithDefault("x").code == "of-the-class"
    assert _WithDefault("x", code="of-the-instance").code == "of-the-instance"


def test_sentence_and_code_survive_pickling() -> None:
    found = pickle.loads(pickle.dumps(UserError("no search 'a'", code="no-such-search")))
    assert (str(found), found.code) == ("no search 'a'", "no-such-search")
