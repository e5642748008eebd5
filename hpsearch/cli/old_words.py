"""Group of commands: the order and paragraphs of its help, and options of version 0.1.0.

Options as version 0.1.0 spelled them are read for one version more, and shown in no help. They are
rewritten before a command parses its words, so no command knows of them.
"""

from collections.abc import Mapping, Sequence
from inspect import cleandoc
from typing import Any

from typer.core import TyperGroup

COMMON_WORDS = {
    "--concurrent": "--max-concurrent-trials",
    "--hang-after": "--report-timeout",
    "--patches": "--max-patches",
}
SEARCH_WORDS = {**COMMON_WORDS, "--wait": "--wait-for-nodes", "--warm-from": "--warm-start-from"}
RESUME_WORDS = {**COMMON_WORDS, "--changed-space": "--on-space-change"}
OLD_WORDS: Mapping[str, Mapping[str, str]] = {
    "search": SEARCH_WORDS,
    "submit": SEARCH_WORDS,
    "resume": RESUME_WORDS,
    "extend": RESUME_WORDS,
    "train": {"--to": "--output", "--compiled": "--compile"},
    "report": {"--to": "--output"},
    "describe": {"--to": "--output"},
    "evaluate": {
        "--out": "--output",
        "--to": "--json",
        "--against": "--compare-with",
        "--yardsticks": "--baselines",
    },
    "rollback": {"--to": "--version"},
    "import": {"--out": "--output", "--skip-bad": "--skip-invalid"},
    "photos": {"--out": "--output"},
    "preview": {"--out": "--output"},
}
"""Old words by command, and the present ones."""
OLD_VALUES = {"--changed-space": {"take": "update"}}
"""Values that an old word had, and the present ones."""


def rewrite_old_words(command: str, words: Sequence[str]) -> list[str]:
    """The words of a command in the present spelling; what follows ``--`` is left alone."""
    present, found = OLD_WORDS.get(command, {}), list[str]()
    values: Mapping[str, str] = {}
    for number, word in enumerate(words):
        if word == "--":
            return [*found, *words[number:]]
        option, sign, value = word.partition("=")
        if option in present:
            values = OLD_VALUES.get(option, {})
            value = values.get(value, value)
            found.append(f"{present[option]}{sign}{value}")
            if sign:
                values = {}
        else:
            found.append(values.get(word, word))
            values = {}
    return found


PANELS = ("Search", "Running", "Results", "Models", "Data", "Cluster", "Housekeeping")
"""Panels of commands in the help, in the order in which a newcomer needs them."""


def join_lines(text: str) -> str:
    """Help text with one line per paragraph, so that only the terminal wraps it."""
    paragraphs = cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).replace("``", "`")


class CommandGroup(TyperGroup):
    """A group of commands that reads old words, and orders its help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for command in self.commands.values():
            command.help = join_lines(command.help or "")

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the commands, panel by panel."""

        def position(name: str) -> int:
            panel = getattr(self.commands[name], "rich_help_panel", None)
            return PANELS.index(panel) if panel in PANELS else len(PANELS)

        return sorted(self.commands, key=position)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names, and its words in the present spelling."""
        name, command, words = super().resolve_command(ctx, args)
        return name, command, rewrite_old_words(name or "", words)
