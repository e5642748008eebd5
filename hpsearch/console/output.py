"""Output to the terminal."""

from rich.console import Console

out = Console(highlight=False, markup=False)  # what is printed may be anybody's words
err = Console(stderr=True, highlight=False, markup=False)


def print_plain(text: str) -> None:
    """Print as it is: no markup, no folding of lines that a user may copy."""
    out.print(text, markup=False, soft_wrap=True)
