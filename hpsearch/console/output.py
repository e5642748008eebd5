"""Output to the terminal."""

from pathlib import Path

from rich.console import Console

from hpsearch.search.workspace import SearchFolder

out = Console(highlight=False, markup=False)  # what is printed may be anybody's words
err = Console(stderr=True, highlight=False, markup=False)
HOME = Path("runs")


def say(text: str) -> None:
    """Print as it is: no markup, no folding of lines that a user may copy."""
    out.print(text, markup=False, soft_wrap=True)


def home_option(folder: SearchFolder) -> str:
    """What to add to a command so that it finds this search."""
    home = folder.workspace.home
    return "" if home == HOME else f" --home {home}"
