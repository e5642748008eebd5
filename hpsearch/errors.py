"""Errors caused by user input, as opposed to bugs."""

EXIT_INTERRUPTED = 130
"""Exit code of an interrupted command that can be resumed; 128 + SIGINT, as in a shell."""


class UserError(ValueError):
    """Invalid input; the message is one sentence with the cause and the fix (exit code 2)."""


class OldSpellingWarning(UserWarning):
    """Warning that a search space uses names of an earlier version, which are still read."""
