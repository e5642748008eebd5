"""No password out of an address survives in what is shown or kept."""

import re
import string
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy import make_url

from hpsearch.errors import UserError
from hpsearch.redaction import filled_in, holds_password, redacted, refuse_password

WITHIN = "".join(sorted(set(string.printable) - set(string.whitespace)))
DATABASES = ("postgresql", "postgresql+psycopg", "mysql+pymysql", "mssql+pyodbc", "redis")
SERVERS = ("http", "https", "databricks", "ftp", "s3")
NAMES = (
    "password", "PASSWORD", "passwd", "pwd", "token", "access_token", "auth_token", "api_key",
    "apikey", "api-key", "sslpassword", "client_secret", "secret", "X-Amz-Signature", "sig",
    "X-Amz-Security-Token", "pass%77ord",
)  # fmt: skip
HIDDEN = "Zq9"
"""Stands in every generated password, and nowhere else."""
users = st.text(string.ascii_letters, max_size=6)
around = st.sampled_from(("{}", "at {} now", "({})", "'{}',", "x={}\nnext line"))


@st.composite
def user_passwords(draw: st.DrawFn) -> str:
    """Addresses with a password of any characters, ``@``, ``/`` and quotes too."""
    scheme = draw(st.sampled_from(DATABASES + SERVERS))
    password = draw(st.text(WITHIN, max_size=8)) + HIDDEN + draw(st.text(WITHIN, max_size=8))
    if scheme in SERVERS:  # a number and a slash are a port to them
        password = f"p{password}"
    return f"{scheme}://{draw(users)}:{password}@host:5432/db?x=1"


@st.composite
def parameters(draw: st.DrawFn) -> str:
    """Addresses with a password among their parameters."""
    text = draw(st.text(WITHIN, max_size=8)) + HIDDEN + draw(st.text(WITHIN, max_size=8))
    pairs = [f"{draw(st.sampled_from(NAMES))}={quote(text, safe='@/?')}"]
    pairs += draw(st.lists(st.sampled_from(("a=1", "sslmode=require")), max_size=2))
    return f"http://host/db?{'&'.join(draw(st.permutations(pairs)))}"


@given(address=user_passwords(), text=around)
def test_no_user_s_password_survives(address: str, text: str) -> None:
    assume(not re.search(r"\$\{?\w*" + HIDDEN, address))  # the name of a variable is no password
    assert HIDDEN not in redacted(text.format(address))
    assert redacted(address).endswith("://host:5432/db?x=1")
    assert holds_password(address)


@given(address=parameters(), text=around)
def test_no_parameter_s_password_survives(address: str, text: str) -> None:
    assert HIDDEN not in redacted(text.format(address))
    assert redacted(address).startswith("http://host/db")
    assert holds_password(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://host:5000/a@b", "sqlite:////a@b/c.db", "postgresql://host/db?passfile=/p",
        "journal:/a/b", "models:/name@champion", "s3://bucket/x?a=1&b=2", "http://h/?page=2",
        "postgresql://ann:$PW@host/db", "mysql://${U}:${PW}@h/db", "http://h/?token=$T&a=1",
    ],
)  # fmt: skip
def test_what_holds_no_password_stays_as_it_is(address: str) -> None:
    assert redacted(address) == address
    assert not holds_password(address)


def test_several_addresses_and_parameters_lose_theirs() -> None:
    text = "http://u:a@b:c@h/x?password=1&token=2&z=3 and mysql://v:d/e@g/db?a=1&sslpassword=4."
    assert redacted(text) == "http://h/x?z=3 and mysql://g/db?a=1."
    assert redacted("odbc:///?odbc_connect=UID%3Dme%3BPWD%3Dx&a=1") == "odbc:///?a=1"


def test_a_refusal_names_the_form_with_a_variable_and_no_password() -> None:
    with pytest.raises(UserError, match=r"--study contains a password.*\$NAME@HOST") as refused:
        refuse_password("postgresql://me:hidden@host/db", "--study")
    assert "hidden" not in str(refused.value)


@given(value=st.text(WITHIN, min_size=1))
def test_a_variable_s_value_is_the_password_that_the_client_reads(value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PW", value)
        url = make_url(filled_in("postgresql://ann:${PW}@host/db"))
    assert (url.username, url.host, url.database) == ("ann", "host", "db")
    if "%" not in value:
        assert url.password == value


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(UserError, match="NOT_THERE, which is not set"):
        filled_in("mysql://ann:$NOT_THERE@host/db")
    assert filled_in("http://ann:pa$word$NOT_THERE2@h") == "http://ann:pa$word$NOT_THERE2@h"
