"""Output to the terminal, which outlives its reader.

A closed pipe (``| head``), a terminal that hung up, or a full disk behind a redirected output must
not end a search, nor must a terminal whose encoding lacks a character: ``steady_output`` replaces
the standard streams by ones that continue without a reader, and spell what cannot be encoded.
"""

import codecs
import errno
import io
import os
import re
import shutil
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, TextIO

from rich.console import Console

COLOR_SYSTEM: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
"""Colors of the terminal; none with the variable ``NO_COLOR``, and then no bold or dim text."""
# printed text may come from untrusted files, so it has no markup
out = Console(highlight=False, markup=False, color_system=COLOR_SYSTEM)
err = Console(stderr=True, highlight=False, markup=False, color_system=COLOR_SYSTEM)

OUTPUT_LOG = "output.log"
"""Name of the file in a search's folder that receives the output once it has no reader."""
MAX_KEPT_CHARACTERS = 100_000
"""Length of the output that is kept for a log file whose path is not yet known."""
SPELLINGS = {
    "…": "...", "×": "x", "·": "-", "–": "-", "—": "-", "−": "-", "→": "->", "±": "+-", "µ": "u",
    "≥": ">=", "≤": "<=", "“": '"', "”": '"', "‘": "'", "’": "'",
}  # fmt: skip
"""Spellings in ASCII of the characters that our messages use."""
ENCODING_ERRORS = "hpsearch-spell"


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what an encoding lacks; a byte of a file name that is no text stays that byte."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    if 0xDC80 <= ord(char) <= 0xDCFF:
        return bytes([ord(char) - 0xDC00]), error.start + 1
    return SPELLINGS.get(char, "?"), error.start + 1


codecs.register_error(ENCODING_ERRORS, _spell)


class SteadyStream(io.TextIOBase):
    """Text stream that continues in a log file, or without output, once it cannot be written.

    Args:
        stream: stream of a file descriptor, such as ``sys.stdout``.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_lost = False
        self.error: OSError | None = None
        """Error that lost output of which no log file has a copy; None also for a closed pipe."""
        self._log: Path | None = None
        self._kept = ""
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ENCODING_ERRORS)

    def write(self, text: str, /) -> int:
        """Write text; an error of the output is not raised, and the text goes to the log file."""
        if not self._is_lost:
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        self._kept = (self._kept + text)[-MAX_KEPT_CHARACTERS:]
        self._write_log()
        return len(text)

    def flush(self) -> None:
        """Flush the stream, which is when a closed pipe is noticed."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)
        if not self._is_lost:
            self._kept = ""
        self._write_log()

    def continue_in(self, log: Path) -> None:
        """Name the file that receives the output, now or later, once it has no reader."""
        self._log = log
        self._write_log()

    def isatty(self) -> bool:
        """Return whether a terminal reads the output."""
        return not (self._is_lost or self._stream.closed) and self._stream.isatty()

    def fileno(self) -> int:
        """Return the file descriptor of the stream."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Encoding of the stream."""
        return self._stream.encoding

    def _lose(self, error: OSError) -> None:
        """Lead the descriptor nowhere, so that what is still buffered can be flushed at exit."""
        if self._is_lost:
            return
        self._is_lost = True
        if error.errno != errno.EPIPE:  # its reader has read enough
            self.error = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def _write_log(self) -> None:
        """Append what had no reader to the log file, once its folder exists."""
        if not (self._is_lost and self._kept and self._log and self._log.parent.is_dir()):
            return
        with suppress(OSError), self._log.open("a", encoding="utf-8", errors="replace") as file:
            file.write(self._kept)
            self._kept, self.error = "", None


def steady_output() -> None:
    """Replace the standard streams by ones that continue without a reader."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, SteadyStream):
            setattr(sys, name, SteadyStream(stream))


def lost_output() -> str:
    """Reason why standard output was not written, of which no log file has a copy; empty if it was.

    A reader that has closed the pipe is none: it has what it wanted.
    """
    stream = sys.stdout
    if not isinstance(stream, SteadyStream):
        return ""
    stream.flush()
    return "" if stream.error is None else stream.error.strerror or str(stream.error)


def continue_output_in(folder: Path) -> None:
    """Let output that has no reader continue in a log file of this folder."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, SteadyStream):
            stream.continue_in(folder / OUTPUT_LOG)


def print_plain(text: str) -> None:
    """Print text without markup and line wrapping, so that a user can copy it."""
    out.print(runnable(text), markup=False, soft_wrap=True)


def runnable(text: str) -> str:
    """Text in which commands of hpsearch are written as this shell can run them.

    Where the environment is not activated, they get the path of the program that runs now.

    Example:
        >>> runnable("add trials with `hpsearch extend mine`")  # doctest: +SKIP
        'add trials with `.venv/bin/hpsearch extend mine`'
    """
    program = _program()
    return COMMAND.sub(lambda _: program, text) if program != "hpsearch" else text


COMMAND = re.compile(
    r"(?<![^\s`'\"(])hpsearch(?= (?:search|resume|extend|train|promote|rollback|report|ui|sync|"
    r"describe|evaluate|export|ensemble|data|submit|status|logs|stop|list|try|pause|"
    r"concurrency|note|show|doctor|du|rm|archive)\b)"
)
"""The program's name in front of a command."""


@cache
def _program() -> str:
    """Name of the program, or its path if the shell would not find it by name."""
    installed = Path(sys.prefix) / "bin" / "hpsearch"
    if shutil.which("hpsearch") or not installed.is_file():
        return "hpsearch"
    near = os.path.relpath(installed)
    return str(installed) if near.startswith(os.pardir) else near
