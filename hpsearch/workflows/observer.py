"""Observer of a workflow, which reports progress to its caller."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hpsearch.search.search_context import SearchContext

if TYPE_CHECKING:
    from hpsearch.workflows.finish_search import SearchResult

Advance = Callable[[int, int, str], None]
"""Callback with the number of items done, the number of all, and the name of the last."""


class Observer:
    """Receives messages and progress of a workflow; this one ignores them.

    A workflow returns its result as a value. Messages and progress go to the methods of an
    observer, which a caller overrides.

    Example:
        >>> class Printing(Observer):
        ...     def message(self, text):
        ...         print(text)
        >>> Printing().message("evaluating on test")
        evaluating on test
    """

    def message(self, text: str) -> None:
        """Receive one line about the current step."""

    def warning(self, text: str) -> None:
        """Receive one line about a failure that needs attention later."""

    def show_scores(self, result: "SearchResult") -> None:
        """Receive the winner with its test scores, as soon as they are kept."""

    def show_registration(self, result: "SearchResult") -> None:
        """Receive the outcome of the winner's registration, before figures are drawn."""

    @contextmanager
    def training(self, context: SearchContext, *, kind: str = "trial") -> Iterator[None]:
        """Surround the training of runs of a search; its event log contains their progress.

        Args:
            context: the search.
            kind: which of its runs are trained, ``trial`` or ``baseline``.
        """
        yield

    @contextmanager
    def progress(self, task: str) -> Iterator[Advance]:
        """Surround a task of many items, for example ``building patches``."""
        yield lambda done, total, name: None
