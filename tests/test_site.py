"""The site of docs/: its navigation, its reference, and the messages that it explains."""

import ast
import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import hpsearch
from hpsearch import config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def site_pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))
    return importlib.import_module("site_pages")


def test_a_page_that_is_not_listed_comes_at_the_end(site_pages: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for name in ("index.md", "use.md", "new.md", "results/more.md"):
        (tmp_path / name).touch()
    nav = ["index.md", {"Use": [{"Title": "use.md"}]}]
    assert site_pages.add_unlisted(nav, tmp_path) == [*nav, {"More": ["new.md", "results/more.md"]}]
    full = [*nav, "new.md", {"Results": ["results/more.md"]}]
    assert site_pages.add_unlisted(full, tmp_path) == full


def test_the_reference_has_every_name_of_the_package() -> None:
    named = set(re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.M))
    api = {f"hpsearch.{module}.{name}" for name, module in hpsearch._EXPORTS.items()}
    settings = {
        f"{value.__module__}.{name}"
        for name in config.__all__
        if (value := getattr(config, name)) and isinstance(value, type)
    }
    assert len(api) > 30
    assert len(settings) > 30
    missing = {n for n in api | settings if n not in named and n.rpartition(".")[0] not in named}
    assert missing == set()


def sentence(node: ast.expr) -> str:
    """Text of an expression, with … for what is only known when it runs."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(sentence(value) for value in values)
        case ast.BinOp(left=left, right=right):
            return sentence(left) + sentence(right)
        case _:
            return "…"


def sentences() -> Iterator[tuple[str, str]]:
    """Code and sentence of each error in the package whose code is a literal."""
    for path in (ROOT / "hpsearch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            for keyword in node.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    yield keyword.value.value, re.sub("…+", "…", sentence(node.args[0]))


def test_each_message_of_troubleshooting_is_one_of_the_package() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    rows = re.findall(r"^\| (.+?) \| `([a-z-]+)` \|", text, re.M)
    assert len(rows) > 15
    known = list(sentences())
    wrong = [
        (code, words)
        for words, code in rows
        if not any(code == c and words.strip("… ") in s.replace("`", "") for c, s in known)
    ]
    assert wrong == []


@pytest.mark.skipif(
    not importlib.util.find_spec("mkdocstrings"), reason="the extra `docs` is not installed"
)
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    pages = list(tmp_path.rglob("*.html"))
    assert {"index.html", "tutorial.html", "api.html"} <= {page.name for page in pages}
    loading = re.compile(
        r"""<(?:script|img|iframe)[^>]*\ssrc=["']?(?:https?:)?//"""
        r"""|<link[^>]*rel=["']?(?:stylesheet|preconnect)[^>]*href=["']?(?:https?:)?//"""
        r"""|class=["']?mermaid\b"""  # the theme would load mermaid from unpkg.com
    )
    assert [page.name for page in pages if loading.search(page.read_text())] == []
