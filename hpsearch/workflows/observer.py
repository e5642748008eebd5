"""Observer of a workflow: how a caller follows long work while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hpsearch.search.search_context import SearchContext

Advance = Callable[[int, int, str], None]
"""Called with the number of items that are done, how many there are, and the name of the last."""


class Observer:
    """Receives messages and progress of a workflow; this one ignores them.

    A workflow returns its result as a value. What happens on the way goes to the methods of an
    observer, which a caller overrides as it likes.

    Example:
        >>> class Printing(Observer):
        ...     def message(self, text):
        ...         print(text)
        >>> Printing().message("evaluating on test")
        evaluating on test
    """

    def message(self, text: str) -> None:
        """Receive one line about what happens now."""

    def warning(self, text: str) -> None:
        """Receive one line about something that did not work and needs attention later."""

    @contextmanager
    def training(self, context: SearchContext, *, kind: str = "trial") -> Iterator[None]:
        """Surround the training of runs of a search; its event log tells how they do.

        Args:
            context: the search.
            kind: which of its runs are trained, ``trial`` or ``yardstick``.
        """
        yield

    @contextmanager
    def progress(self, task: str) -> Iterator[Advance]:
        """Surround a task of many items, for example ``building patches``."""
        yield lambda done, total, name: None
