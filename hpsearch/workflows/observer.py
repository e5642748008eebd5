"""Observer of a workflow, which reports progress to its caller, and the result of a search."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.run_state import Run

if TYPE_CHECKING:
    from hpsearch.evaluation import Scores
    from hpsearch.promotion.registration import RegistrationOutcome

Advance = Callable[[int, int, str], None]
"""Callback with the number of items done, the number of all, and the name of the last."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Result of a session of a search."""

    context: SearchContext
    status: Literal["completed", "interrupted"]
    """``interrupted`` if trials are left that ``resume`` trains."""
    reason: str = ""
    """Reason of the interruption, or of a missing winner; else empty."""
    winner: Run | None = None
    """The completed trial with the best objective on validation."""
    test_scores: Mapping[str, "Scores"] = field(default_factory=dict)
    """Scores on test of the winner and the baselines, by name; empty without a winner."""
    registration: "RegistrationOutcome | None" = None
    """Outcome of the winner's registration; None if it failed."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall-clock seconds of each step of this session, in order."""

    @property
    def runs(self) -> list[Run]:
        """Trials and baselines of the search, of all its sessions."""
        return self.context.runs


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

    def show_scores(self, result: SearchResult) -> None:
        """Receive the winner with its test scores, as soon as they are kept."""

    def show_registration(self, result: SearchResult) -> None:
        """Receive the outcome of the winner's registration, before figures are drawn."""

    def search_ended(self, result: SearchResult | None, error: BaseException | None) -> None:
        """Receive the end of a session.

        Args:
            result: result of the session; None if it ended with an error.
            error: the error, or the interruption.
        """

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
