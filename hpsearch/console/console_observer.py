"""Observer that shows a workflow on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from hpsearch.console.live_progress import LiveProgress
from hpsearch.console.output import continue_output_in, err, out
from hpsearch.console.progress_bars import progress_bar
from hpsearch.search.search_context import SearchContext
from hpsearch.workflows.observer import Advance, Observer


class ConsoleObserver(Observer):
    """Prints messages, warnings on standard error, a live table of trials and progress bars."""

    def message(self, text: str) -> None:
        """Print a line as it is, so that commands in it can be copied."""
        out.print(text, markup=False, soft_wrap=True)
        out.file.flush()

    def warning(self, text: str) -> None:
        """Print a line on standard error."""
        err.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def training(self, context: SearchContext, *, kind: str = "trial") -> Iterator[None]:
        """Show the runs in a live table, or line by line in a file."""
        continue_output_in(context.paths.folder)
        with LiveProgress(context.event_log, context.search, out, context.record.trials, kind=kind):
            yield

    @contextmanager
    def progress(self, task: str) -> Iterator[Advance]:
        """Show a progress bar."""
        with progress_bar(task) as advance:
            yield advance
