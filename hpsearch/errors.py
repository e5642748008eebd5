"""What a user can mend, told apart from what is our bug."""

EXIT_INTERRUPTED = 130
"""Exit code of a command that was stopped and can go on, as a shell has it for Ctrl-C."""


class UserError(ValueError):
    """One sentence that says what is wrong and how to mend it; the command exits with code 2."""


class OldSpellingWarning(UserWarning):
    """A search space uses names of an earlier version; they are still read."""
