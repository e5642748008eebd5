"""Callbacks of a search: methods that are called as its trials start, report and end."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.event_log import Event, EventLog
from hpsearch.tracking.run_state import Run, apply_event
from hpsearch.workflows.observer import Advance, Observer, SearchResult

LOGGER = logging.getLogger("hpsearch")
LOGGER.setLevel(logging.INFO)
LOGGER.addHandler(logging.NullHandler())
POLL_INTERVAL_S = 0.5
"""Seconds between two readings of the event log."""


class Callback:
    """Base class of callbacks; each method does nothing unless it is overridden.

    The methods are called in the process that runs the search, from one thread, in the order of the
    event log. A callback that raises is reported once and changes nothing else.

    Example:
        >>> class Printing(Callback):
        ...     def on_trial_end(self, run):
        ...         print(run.label, run.status)
        >>> import hpsearch as hp
        >>> hp.run_search("space.py", callbacks=[Printing()])  # doctest: +SKIP
    """

    def on_search_start(self, context: SearchContext) -> None:
        """Receive the search before its first trial, also when it is resumed."""

    def on_trial_start(self, run: Run) -> None:
        """Receive a trial that starts, or resumes after a pause or after its worker died."""

    def on_report(self, run: Run) -> None:
        """Receive a trial with its latest report: ``run.seen``, ``run.last``."""

    def on_trial_end(self, run: Run) -> None:
        """Receive a trial that ended, with its status and reason."""

    def on_wait(self, seconds: float) -> None:
        """Receive the seconds since the latest event, several times a second while there is none.

        Args:
            seconds: since the latest event of the search.
        """

    def on_registration(self, result: SearchResult) -> None:
        """Receive the result with ``registration``, which has the winner's version and alias."""

    def on_search_end(self, result: SearchResult | None, error: BaseException | None) -> None:
        """Receive the end of a session.

        Args:
            result: result of the session; None if it ended with an error.
            error: the error, or the interruption.
        """


@dataclass
class CallbackObserver(Observer):
    """Observer that calls callbacks, and passes everything on to another observer.

    Args:
        inner: the other observer.
        callbacks: called in this order.
    """

    inner: Observer
    callbacks: Sequence[Callback]
    _failed: set[int] = field(default_factory=set)

    def message(self, text: str) -> None:
        """Pass on a line, and log it."""
        LOGGER.info(text)
        self.inner.message(text)

    def warning(self, text: str) -> None:
        """Pass on a warning, and log it."""
        LOGGER.warning(text)
        self.inner.warning(text)

    def show_scores(self, result: SearchResult) -> None:
        """Pass on the test scores."""
        self.inner.show_scores(result)

    def show_registration(self, result: SearchResult) -> None:
        """Pass on the registration, and call the callbacks."""
        self.inner.show_registration(result)
        self.call("on_registration", result)

    def search_ended(self, result: SearchResult | None, error: BaseException | None) -> None:
        """Pass on the end of a session, and call the callbacks."""
        self.inner.search_ended(result, error)
        self.call("on_search_end", result, error)

    @contextmanager
    def training(self, context: SearchContext, *, kind: str = "trial") -> Iterator[None]:
        """Follow the event log while trials are trained."""
        if kind != "trial":
            with self.inner.training(context, kind=kind):
                yield
            return
        self.call("on_search_start", context)
        with _EventFollower(context.event_log, self), self.inner.training(context, kind=kind):
            yield

    @contextmanager
    def progress(self, task: str) -> Iterator[Advance]:
        """Pass on the progress of a task."""
        with self.inner.progress(task) as advance:
            yield advance

    def call(self, method: str, *arguments: Any) -> None:
        """Call a method of every callback that has not raised before."""
        for number, callback in enumerate(self.callbacks):
            if number in self._failed:
                continue
            try:
                getattr(callback, method)(*arguments)
            except Exception as error:  # a user's callback must not end the search
                self._failed.add(number)
                self.warning(
                    f"callback {type(callback).__name__}.{method} raised {type(error).__name__} "
                    f"({error}); it is not called any more"
                )


METHODS = {"start": "on_trial_start", "report": "on_report", "trial_finished": "on_trial_end"}
"""Method for each event of a trial."""


class _EventFollower:
    """Thread that calls callbacks for the events that a log gains."""

    def __init__(self, event_log: EventLog, observer: CallbackObserver) -> None:
        self._event_log, self._observer = event_log, observer
        self._stop, self._runs = threading.Event(), dict[str, Run]()
        self._offset, self._quiet = 0, 0.0
        self._apply(announce=False)
        self._thread = threading.Thread(target=self._follow, name="callbacks", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(POLL_INTERVAL_S):
            if self._apply(announce=True):
                self._quiet = 0.0
            else:
                self._quiet += POLL_INTERVAL_S
                self._observer.call("on_wait", self._quiet)
        self._apply(announce=True)

    def _apply(self, *, announce: bool) -> bool:
        """Apply new events; return whether there were any."""
        events, self._offset = self._event_log.read(self._offset)
        for event in events:
            self._apply_one(event, announce=announce)
        return bool(events)

    def _apply_one(self, event: Event, *, announce: bool) -> None:
        if "trial" not in event or event["event"] == "request":
            return
        run = apply_event(self._runs.get(event["trial"]), event)
        self._runs[event["trial"]] = run
        method = METHODS.get(event["event"])
        if announce and method and run.kind == "trial":
            self._observer.call(method, run)


def with_callbacks(observer: Observer | None, callbacks: Sequence[Callback]) -> Observer:
    """Observer that also logs messages and calls callbacks."""
    return CallbackObserver(observer or Observer(), callbacks)
