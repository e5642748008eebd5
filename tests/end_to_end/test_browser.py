"""A machine without Chromium fails the tests of pages, and is told what to install."""

import re
from pathlib import Path

import pytest

from .browser import CHROMIUM_NAMES, chromium


def test_without_chromium_the_tests_of_pages_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        chromium()


@pytest.mark.parametrize("name", CHROMIUM_NAMES)
def test_chromium_is_found_by_each_of_its_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert chromium() == str(tmp_path / name)


def test_no_test_of_pages_can_be_skipped() -> None:
    here = Path(__file__).parent
    for path in (here / "browser.py", here / "test_mlflow_ui.py"):
        assert not re.search(r"skipif|pytest\.skip|importorskip", path.read_text()), path
