"""Output to the terminal."""

from rich.console import Console

out = Console(highlight=False, markup=False)  # printed text may come from untrusted files
err = Console(stderr=True, highlight=False, markup=False)


def print_plain(text: str) -> None:
    """Print text without markup and line wrapping, so that a user can copy it."""
    out.print(text, markup=False, soft_wrap=True)
