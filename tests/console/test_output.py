"""Output that loses its reader, and terminals that lack characters: nothing ends for that."""

import ast
import io
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from hpsearch.console.output import OUTPUT_LOG, SteadyStream

from ..processes import environment

PACKAGE = Path(__file__).parents[2] / "hpsearch"
PRINTS = """
import sys
from contextlib import suppress
from pathlib import Path
from hpsearch.console.output import continue_output_in, err, out, print_plain, steady_output
steady_output()
out.print("first")
print_plain("second")
print("third", flush=True)
continue_output_in(Path(sys.argv[1]))
print_plain("fourth")
err.print("fifth")
assert not out.is_terminal
"""


@pytest.mark.parametrize("lost", ["pipe", "full disk"])
def test_output_without_a_reader_continues_in_the_log_file(tmp_path: Path, lost: str) -> None:
    ends = os.pipe()
    os.close(ends[0])
    target = ends[1] if lost == "pipe" else os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-c", PRINTS, str(tmp_path)], env=environment(), stdout=target,
        stderr=target, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    lines = (tmp_path / OUTPUT_LOG).read_text().splitlines()
    assert lines == ["first", "second", "third", "fourth", "fifth"]


@pytest.mark.parametrize("words", [("--version",), ("list",), ("list", "--help")], ids=" ".join)
def test_a_command_whose_output_meets_a_full_disk_has_failed(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hpsearch", *words], env=environment(), stdout=full,
            stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: standard output could not be written (No space left")
    assert "Traceback" not in done.stderr


def test_a_command_whose_reader_has_enough_is_silent(tmp_path: Path) -> None:
    ends = os.pipe()
    os.close(ends[0])
    done = subprocess.run(
        [sys.executable, "-m", "hpsearch", "--version"], env=environment(), stdout=ends[1],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    os.close(ends[1])
    assert (done.returncode, done.stderr) == (0, "")


def test_output_that_is_read_leaves_no_log_file(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PRINTS, str(tmp_path)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("first\nsecond\nthird\nfourth\n", "fifth\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
def test_no_character_of_ours_and_no_file_name_is_an_error(encoding: str) -> None:
    ours = {char for path in PACKAGE.rglob("*.py") for char in path.read_text("utf-8")}
    assert "…" in ours
    written = io.BytesIO()
    stream = SteadyStream(io.TextIOWrapper(written, encoding=encoding))
    for char in sorted(ours):
        stream.write(char)
    stream.write("x …\n" + os.fsdecode(b"caf\xe9\n"))
    stream.flush()
    shown = "x …\n".encode() if encoding == "utf-8" else b"x ...\n"
    assert written.getvalue().endswith(shown + b"caf\xe9\n"), "a file name keeps its bytes"


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "C locale"],
)
def test_a_command_runs_on_a_terminal_of_any_encoding(
    variables: dict[str, str], tmp_path: Path
) -> None:
    for words, code in ((["extend", "--help"], 0), (["report", "×…\u6f22"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "hpsearch", *words], env=environment(**variables),
            capture_output=True, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"error: ")


QUOTED = re.compile(
    r"(?:context\.|outcome\.)?(?:name|model|search)|(?:\w+\.)*home_option|home|job\.search|kind"
)
"""Names, also of kinds of data, which hold no character of a shell's, and options that are quoted
where they are made."""
COMMAND = re.compile(r"(?:^|`|  )hpsearch (?!itself)[a-z]*")


def printed_commands() -> list[tuple[str, str]]:
    """Each expression that is put into the text of a command, with its file."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for text in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(text, ast.JoinedStr):
                continue
            inside = False
            for part in text.values:
                if isinstance(part, ast.Constant):
                    begun = list(COMMAND.finditer(str(part.value)))
                    rest = str(part.value)[begun[-1].end() if begun else 0 :]
                    inside = (inside or bool(begun)) and not re.search(r"[`\n;]", rest)
                elif inside and isinstance(part, ast.FormattedValue):
                    found.append((path.name, ast.unparse(part.value)))
    return found


def test_printed_commands_are_quoted_for_a_shell() -> None:
    commands = printed_commands()
    assert ("promotion_output.py", "parent.home_option") in commands
    assert [x for x in commands if not QUOTED.fullmatch(x[1])] == []


def on_terminal(*words: str, **variables: str) -> bytes:
    """What ``hpsearch WORDS`` prints on a terminal that shows colors."""
    ours, theirs = pty.openpty()
    program = "from hpsearch.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment(**{"TERM": "xterm-256color", "NO_COLOR": "", **variables}),
    )  # fmt: skip
    os.close(theirs)
    printed = b""
    with suppress(OSError):  # how Linux says that the other end is closed
        while chunk := os.read(ours, 65536):
            printed += chunk
    os.close(ours)
    process.wait()
    return printed


@pytest.mark.parametrize("words", [["--help"], ["report", "nosuch"], ["nosuch"]], ids=" ".join)
def test_no_color_leaves_no_escape_codes(words: list[str], tmp_path: Path) -> None:
    plain = on_terminal(*words, NO_COLOR="1", HPSEARCH_HOME=str(tmp_path))
    assert b"\x1b" in on_terminal(*words, HPSEARCH_HOME=str(tmp_path))
    assert len(plain) > 20
    assert b"\x1b" not in plain
