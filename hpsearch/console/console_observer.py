"""Observer that shows a workflow on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from hpsearch.console.live_progress import LiveProgress
from hpsearch.console.output import continue_output_in, err, out, runnable
from hpsearch.console.progress_bars import progress_bar
from hpsearch.patch_views import VIEWS
from hpsearch.search.search_context import SearchContext
from hpsearch.workflows.observer import Advance, Observer, SearchResult


class ConsoleObserver(Observer):
    """Prints messages, warnings on standard error, a live table of trials and progress bars."""

    def message(self, text: str) -> None:
        """Print a line as it is, so that commands in it can be copied."""
        out.print(runnable(text), markup=False, soft_wrap=True)
        out.file.flush()

    def warning(self, text: str) -> None:
        """Print a line on standard error."""
        err.print(runnable(text), markup=False, soft_wrap=True)

    def show_scores(self, result: SearchResult) -> None:
        """Print the leaderboard, the cost of the trials, and the test scores."""
        from hpsearch.console.search_output import print_scores, print_trials

        print_trials(result.context)
        print_scores(result.test_scores)
        out.file.flush()

    def show_registration(self, result: SearchResult) -> None:
        """Print the registered version and the next commands."""
        from hpsearch.console.search_output import print_registration

        print_registration(result)
        out.file.flush()

    @contextmanager
    def training(self, context: SearchContext, *, kind: str = "trial") -> Iterator[None]:
        """Show the runs in a live table, or line by line in a file."""
        continue_output_in(context.paths.folder)
        with LiveProgress(
            context.event_log,
            context.search,
            out,
            context.record.trials,
            kind=kind,
            end_patches=_patches_after_trials(context),
        ):
            yield

    @contextmanager
    def progress(self, task: str) -> Iterator[Advance]:
        """Show a progress bar."""
        with progress_bar(task) as advance:
            yield advance


def _patches_after_trials(context: SearchContext) -> int:
    """Patches after the last trial, in patches trained: a baseline's, and the test set's.

    Describing a patch takes a third of the time of training with it; winner, initial point and
    baseline are described, or the one network of a promotion.
    """
    from hpsearch.promotion.retraining_plan import PLAN_FILE

    test = VIEWS * len(context.data.test_patches())
    if (context.paths.folder / PLAN_FILE).exists():
        return test // 3
    return context.search.baseline.patches + test
