"""What a user can mend, told apart from what is our bug."""


class UserError(ValueError):
    """One sentence that says what is wrong and how to mend it; the command exits with code 2."""
