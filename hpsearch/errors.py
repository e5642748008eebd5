"""Errors caused by user input, as opposed to bugs."""

from collections.abc import Iterable
from typing import ClassVar

EXIT_INTERRUPTED = 130
"""Exit code of a command that was interrupted and can be resumed, as a shell reports Ctrl-C."""


class UserError(ValueError):
    """Error that the user can correct; the command prints its sentence and exits with code 2.

    Args:
        message: one sentence with state, cause and action.
        code: short kebab-case name of the kind of error, for callers of the Python API; that of
            the class if empty.

    Example:
        >>> UserError("there is no search 'full'", code="no-such-search").code
        'no-such-search'
    """

    default_code: ClassVar[str] = "user-error"

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code or self.default_code


class OldSpellingWarning(UserWarning):
    """Warning that a search space uses names of an earlier version; they are still read."""


def list_names(names: Iterable[object], *, limit: int) -> str:
    """Names with commas, at most ``limit`` of them; the number of the others follows.

    Example:
        >>> list_names(["v_wall", "v_tree", "i_lamp", "i_sky"], limit=2)
        'v_wall, v_tree and 2 more'
    """
    every = [str(name) for name in names]
    more = f" and {len(every) - limit:,} more" if len(every) > limit else ""
    return ", ".join(every[:limit]) + more
