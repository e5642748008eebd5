"""Printed commands, where the environment is activated and where it is not."""

import os
import sys
from pathlib import Path

import pytest

from hpsearch.console import output
from hpsearch.console.output import runnable

SENTENCE = "search 'x' has finished; add trials with `hpsearch extend x --trials 20`"


@pytest.fixture
def without_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment whose programs are not in PATH, and the folder that contains it."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "hpsearch").touch(mode=0o755)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setenv("PATH", "/nowhere")
    output._program.cache_clear()
    return tmp_path


@pytest.fixture(autouse=True)
def forget_program() -> None:
    output._program.cache_clear()


def test_without_an_activated_environment_the_path_is_printed(
    without_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(without_path)
    assert runnable(SENTENCE).endswith("`.venv/bin/hpsearch extend x --trials 20`")
    assert runnable("  hpsearch ui     browse") == "  .venv/bin/hpsearch ui     browse"


def test_elsewhere_the_whole_path_is_printed(
    without_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (without_path / "other").mkdir()
    monkeypatch.chdir(without_path / "other")
    path = without_path / ".venv" / "bin" / "hpsearch"
    assert runnable("hpsearch report x") == f"{path} report x"


@pytest.mark.parametrize(
    "text",
    [
        "a newer hpsearch wrote it",
        "pip_requirements hpsearch==0.2.0",
        "models:/hpsearch ui",
        "/opt/bin/hpsearch ui",
        "my-hpsearch ui",
    ],
)
def test_other_words_stay(without_path: Path, text: str) -> None:
    assert runnable(text) == text


def test_with_an_activated_environment_the_name_is_enough(
    without_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(without_path / ".venv" / "bin") + os.pathsep + "/nowhere")
    assert runnable(SENTENCE) == SENTENCE
