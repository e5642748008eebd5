"""What ``--help`` shows on a terminal of 80 columns, for every command."""

import itertools
import re

import pytest
import typer.main
from typer.testing import CliRunner

from hpsearch.cli import app
from hpsearch.data.splits import SPLIT_NAMES
from hpsearch.errors import UserError

WIDTH = 80
ROOT = typer.main.get_command(app)
NAMES = [(name,) for name in ROOT.commands if name != "data"]  # type: ignore[attr-defined]
NAMES += [("data", name) for name in ROOT.commands["data"].commands]  # type: ignore[attr-defined]


def help_of(*words: str, width: int = WIDTH) -> str:
    done = CliRunner(env={"COLUMNS": str(width)}).invoke(app, [*words, "--help"])
    assert done.exit_code == 0, done.output
    return done.output


def description(text: str) -> list[str]:
    """Lines between the usage and the first panel."""
    head = text.partition("╭")[0].splitlines()
    return [line.rstrip() for line in head if "Usage:" not in line]


def breaks_early(lines: list[str]) -> list[str]:
    """Lines that end although the first word of the next line has room in them."""
    return [
        line
        for line, after in itertools.pairwise(lines)
        if line and after and len(line) + 1 + len(after.split()[0]) < WIDTH
    ]


@pytest.mark.parametrize("words", [(), ("data",), *NAMES], ids=" ".join)
def test_paragraphs_are_wrapped_at_the_terminal_s_width_alone(words: tuple[str, ...]) -> None:
    lines = description(help_of(*words))
    assert len(lines) > 2
    assert breaks_early(lines) == []


def test_a_break_in_mid_sentence_is_found() -> None:
    assert breaks_early([" The configuration that is trained with the median", " objective is."])
    assert not breaks_early([" One sentence.", "", " Another."])


@pytest.mark.parametrize("words", [(), ("data",), *NAMES], ids=" ".join)
def test_help_has_no_markup_of_docstrings(words: tuple[str, ...]) -> None:
    text = help_of(*words)
    assert "``" not in text
    assert not re.search(r":\w+:`", text)


@pytest.mark.parametrize("words", NAMES, ids=" ".join)
def test_help_has_an_example_of_the_command(words: tuple[str, ...]) -> None:
    assert f"Example: hpsearch {' '.join(words)}" in help_of(*words, width=200)


def test_panels_are_in_the_order_of_use() -> None:
    panels = re.findall(r"╭─ (\w+) ─", help_of())
    assert panels == [
        "Options", "Search", "Running", "Results", "Models", "Data", "Cluster", "Housekeeping",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["search", "train", "evaluate"])
def test_every_split_is_listed(command: str) -> None:
    text = " ".join(help_of(command, width=300).split())
    listed = re.search(r"--split.*?validate and test: (.*?)\.", text)
    assert listed is not None
    assert set(re.split(r", | or ", listed[1])) == set(SPLIT_NAMES)


def test_a_wrong_duration_is_one_sentence_with_its_option() -> None:
    words = ["search", "space.py", "--time-limit", "90x"]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, words)
    assert done.exit_code == 2
    assert "Invalid value for '--time-limit': '90x' is not a duration; give 90m" in done.output


def test_a_dry_run_refuses_a_program_that_is_not_there() -> None:
    words = ["search", "space.py", "--dry-run", "--notify", "no-such-program-anywhere now"]
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, UserError)
    assert error.code == "invalid-notify-target"
