"""Who was champion before whom: versions in the order in which they bore the alias.

The alias itself is the truth about the present. The line is written after the alias moves, so it
may lag behind by one; ``up_to`` puts it right again.
"""

KEPT = 200
"""Versions that a line remembers."""


def parse(text: str) -> tuple[int, ...]:
    """A line as it stands in a tag: ``"1 4 7"``; what is no number is left out."""
    return tuple(int(word) for word in text.split() if word.isdecimal())


def up_to(line: tuple[int, ...], champion: int | None) -> tuple[int, ...]:
    """The line so that it ends with the present champion.

    One that it does not know yet has come last. One that it knows has been gone back to, and
    those after it are no longer its predecessors.
    """
    if champion is None:
        return line
    if champion not in line:
        return (*line, champion)
    return line[: len(line) - line[::-1].index(champion)]


def crown(line: tuple[int, ...], version: int) -> tuple[int, ...]:
    """The line after a version became champion."""
    return line if line[-1:] == (version,) else (*line, version)[-KEPT:]


def before(line: tuple[int, ...], existing: frozenset[int]) -> int | None:
    """The champion before the last of the line; None if there was none that still exists."""
    return next((version for version in line[-2::-1] if version in existing), None)
