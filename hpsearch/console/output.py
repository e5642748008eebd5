"""Output to the terminal."""

import os
import re
import shutil
import sys
from functools import cache
from pathlib import Path

from rich.console import Console

out = Console(highlight=False, markup=False)  # printed text may come from untrusted files
err = Console(stderr=True, highlight=False, markup=False)


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
    r"describe|evaluate|export|ensemble|data|submit|status|logs|stop|list)\b)"
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
