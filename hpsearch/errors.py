"""Errors caused by user input, as opposed to bugs."""

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
