"""Options as version 0.1.0 spelled them: read for one version more, and shown in no help.

They are rewritten before a command parses its words, so no command knows of them.
"""

from collections.abc import Mapping, Sequence
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


class CommandGroup(TyperGroup):
    """A group of commands that reads old words."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names, and its words in the present spelling."""
        name, command, words = super().resolve_command(ctx, args)
        return name, command, rewrite_old_words(name or "", words)
