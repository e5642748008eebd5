"""Progress bars on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from hpsearch.console.output import err
from hpsearch.data.arrow_header import StoreProgress


@contextmanager
def progress_bar(task: str) -> Iterator[StoreProgress]:
    """Show a progress bar on a terminal; nothing is printed to a file."""
    columns = (
        TextColumn("{task.description}", markup=False),  # the name may come from an untrusted file
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = not err.is_terminal
    with Bar(*columns, console=err, disable=hidden, transient=True) as bar:
        shown = bar.add_task(task, total=None)

        def advance(done: int, total: int, name: str) -> None:
            bar.update(shown, completed=done, total=total, description=f"{task} {name}")

        yield advance
