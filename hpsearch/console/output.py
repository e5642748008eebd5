"""Output to the terminal."""

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print as it is: no markup, no folding of lines that a user may copy."""
    out.print(text, markup=False, soft_wrap=True)
