"""Options of 0.1.0: each is read as its present one, and no help shows it."""

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from hpsearch.cli import app
from hpsearch.cli.old_words import OLD_WORDS, rewrite_old_words

COMMANDS = {name: ["data", name] if name in ("import", "photos", "preview") else [name]
            for name in OLD_WORDS}  # fmt: skip
PAIRS = [(name, old, new) for name, words in OLD_WORDS.items() for old, new in words.items()]


def help_of(command: str) -> str:
    done = CliRunner(env={"COLUMNS": "400"}).invoke(app, [*COMMANDS[command], "--help"])
    assert done.exit_code == 0
    return done.output


def shown_words(command: str) -> set[str]:
    return {word.strip("│╭╮ ,.;:()") for word in help_of(command).split()}


@pytest.mark.parametrize("command", OLD_WORDS)
def test_help_shows_the_present_words_alone(command: str) -> None:
    shown = shown_words(command)
    assert not shown & OLD_WORDS[command].keys() - set(OLD_WORDS[command].values())
    if command != "submit":  # it passes on the options of `search`
        assert set(OLD_WORDS[command].values()) <= shown


@pytest.mark.parametrize(("command", "old", "new"), PAIRS)
def test_an_old_word_is_read_as_the_present_one(command: str, old: str, new: str) -> None:
    assert rewrite_old_words(command, ["a", old, "5"]) == ["a", new, "5"]
    assert rewrite_old_words(command, [f"{old}=5", "b"]) == [f"{new}=5", "b"]
    assert rewrite_old_words(command, ["--", old]) == ["--", old]


def test_an_old_value_is_read_as_the_present_one() -> None:
    for words in (["--changed-space", "take"], ["--changed-space", "keep"]):
        value = "update" if words[1] == "take" else "keep"
        assert rewrite_old_words("resume", words) == ["--on-space-change", value]
        assert rewrite_old_words("resume", ["=".join(words)]) == [f"--on-space-change={value}"]
    assert rewrite_old_words("resume", ["take", "--cpus", "take"]) == ["take", "--cpus", "take"]


def test_words_that_are_not_old_are_left_alone() -> None:
    words = ["--output", "x", "--to", "y"]
    assert rewrite_old_words("sync", words) == words


def test_the_app_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, Any] = {}
    group = typer.main.get_command(app)
    report = group.commands["report"]  # type: ignore[attr-defined]
    monkeypatch.setattr(report, "callback", lambda **given: found.update(given))
    group.main(["report", "mine", "--to", "page.html"], standalone_mode=False)
    assert str(found["output"]) == "page.html"
