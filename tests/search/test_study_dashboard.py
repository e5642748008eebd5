"""Optuna's dashboard shows a copy of the study, to whoever has the token."""

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import optuna
import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.search.search_context import SearchContext
from hpsearch.search.study import open_study
from hpsearch.search.study_dashboard import serve_dashboard
from hpsearch.search.workspace import SearchRecord, Workspace

SPACE = Path(__file__).parents[1] / "end_to_end" / "space.py"


@pytest.fixture
def context(tmp_path: Path, tiny: PatchStore) -> SearchContext:
    """A search whose study has two trials."""
    record = SearchRecord(
        space=str(SPACE), store=str(tiny.path), fingerprint=tiny.fingerprint, split="auto",
        tracking_uri="", trials=3,
    )  # fmt: skip
    context = Workspace(tmp_path).create("seen", SPACE, record)
    study = open_study(context.paths.folder, search=context.search)
    for value in (0.25, 0.5):
        study.add_trial(optuna.trial.create_trial(value=value))
    return context


def browser() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(CookieJar()), urllib.request.ProxyHandler({})
    )


def status(opener: urllib.request.OpenerDirector, url: str, method: str = "GET") -> int:
    request = urllib.request.Request(url, b"{}" if method != "GET" else None, method=method)
    request.add_header("Content-Type", "application/json")
    try:
        with opener.open(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_the_study_is_shown_to_whoever_has_the_token(context: SearchContext) -> None:
    pytest.importorskip("optuna_dashboard", reason="the extra dashboard is not installed")
    with serve_dashboard(context) as address:
        assert address.startswith("http://127.0.0.1:")
        base = address.split("/?")[0]
        for path in ("/", "/api/studies", "/api/studies/0", "/csv/0", "/?token=wrong", "/?token=ä"):
            assert status(browser(), base + urllib.parse.quote(path, safe="/?=")) == 401, path
        page = browser()
        assert status(page, address) == 200
        with page.open(f"{base}/api/studies/0", timeout=20) as answer:
            shown = json.load(answer)
        assert [trial["values"] for trial in shown["trials"]] == [[0.25], [0.5]]
        assert shown["objective_names"] == ["val/mAP"]
        for method, path in (
            ("DELETE", "/api/studies/0"),
            ("POST", "/api/studies"),
            ("PUT", "/api/studies/0/note"),
        ):
            assert status(page, base + path, method) == 403, path
    with pytest.raises(OSError, match="refused"):
        browser().open(address, timeout=20)


def test_a_port_in_use_is_refused(context: SearchContext) -> None:
    pytest.importorskip("optuna_dashboard", reason="the extra dashboard is not installed")
    with serve_dashboard(context) as address:
        port = int(address.split("/?")[0].rpartition(":")[2])
        with (
            pytest.raises(UserError, match=f"port {port} is in use"),
            serve_dashboard(context, port),
        ):
            pass


def test_without_the_package_the_command_to_install_it_is_named(
    context: SearchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with (
        pytest.raises(UserError, match=r"hpsearch\[dashboard\]") as caught,
        serve_dashboard(context),
    ):
        pass
    assert caught.value.code == "no-dashboard"
