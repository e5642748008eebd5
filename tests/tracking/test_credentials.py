"""Passwords in addresses: used, and neither written nor shown."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.errors import UserError
from hpsearch.redaction import redacted
from hpsearch.tracking.connection import (
    MLFLOW_VARIABLES,
    POSTGRESQL_VARIABLES,
    move_credentials_to_env,
    resolve_tracking,
)
from hpsearch.tracking.mlflow_errors import format_error


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*MLFLOW_VARIABLES, *POSTGRESQL_VARIABLES):
        monkeypatch.setenv(name, "before")  # so that it is put back
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("uri", "bare", "names"),
    [
        ("http://ann:p%40ss@host:5000/x", "http://host:5000/x", MLFLOW_VARIABLES),
        ("https://ann:p%40ss@host", "https://host", MLFLOW_VARIABLES),
        ("postgresql://ann:p%40ss@host/db", "postgresql://host/db", POSTGRESQL_VARIABLES),
        (
            "postgresql+psycopg://ann:p%40ss@h:1/db",
            "postgresql+psycopg://h:1/db",
            POSTGRESQL_VARIABLES,
        ),
    ],
)
def test_they_go_where_the_client_looks(uri: str, bare: str, names: tuple[str, str]) -> None:
    assert move_credentials_to_env(uri) == bare
    assert [os.environ[name] for name in names] == ["ann", "p@ss"]


@pytest.mark.parametrize("uri", ["http://host:5000", "sqlite:////a@b/c.db", "postgresql:///db"])
def test_an_address_without_them_stays_as_it_is(uri: str) -> None:
    assert move_credentials_to_env(uri) == uri
    assert not {*MLFLOW_VARIABLES, *POSTGRESQL_VARIABLES} & os.environ.keys()


def test_a_database_that_has_no_place_for_them_keeps_them_and_never_shows_them(
    tmp_path: Path,
) -> None:
    tracking = resolve_tracking("mysql+pymysql://ann:secret@host/db", tmp_path)
    assert "secret" in tracking.uri
    assert "secret" not in tracking.display_uri + repr(tracking)
    message = format_error(OSError(f"cannot open {tracking.uri} now"), tracking.uri)
    assert "secret" not in message
    assert "mysql+pymysql://host/db" in message


@given(
    user=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    password=st.from_regex(r"[A-Za-z0-9%!*+,;=.~-][A-Za-z0-9%!$*+,;=.~-]{5,11}", fullmatch=True),
)
def test_no_password_survives(user: str, password: str) -> None:
    shown = redacted(f"at http://{user}:{password}@host:1/a, and x://h/db?password={password}&a=1")
    assert password not in shown.replace("a=1", "")
    assert "http://host:1/a" in shown


@pytest.mark.parametrize("uri", ["somewhere", "/tmp/mlruns", "file:///tmp/x", "ftp://u:pw@host"])
def test_what_is_no_tracking_uri_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        resolve_tracking(uri, tmp_path)
    assert caught.value.code == "invalid-tracking-uri"
    assert "pw" not in str(caught.value)
