"""End of a search: baseline, test scores, registration, figures; each step can be taken again."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from hpsearch.errors import UserError
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.promotion.final_evaluation import (
    best_run,
    evaluate_on_test,
    scoring_ahead,
    train_baseline,
)
from hpsearch.promotion.registration import RegistrationOutcome, register_winner
from hpsearch.promotion.score_cache import single_threaded
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.mlflow_errors import (
    TRANSIENT_CODES,
    MlflowUnavailableError,
    translate_mlflow_errors,
)
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.run_state import Run
from hpsearch.workflows.observer import Observer, SearchResult
from hpsearch.workflows.publish_figures import named_scores, publish_figures

Outcome = TypeVar("Outcome")
END_STEPS = ("registration", "figures")
"""Steps after the test scores, which MLflow takes part in."""
RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further attempt at a step while MLflow is locked or does not answer."""


class StepTimer:
    """Wall-clock time of the steps of a session."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Seconds of each step that has ended, in order."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step, also if it fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - started


def finish_search(
    context: SearchContext, mlflow_sync: MlflowSync, observer: Observer, timer: StepTimer
) -> SearchResult:
    """Train the baseline, evaluate on test, register the winner, and publish figures.

    Each step finds what it did before, so the whole can be taken again. The observer receives the
    scores before MLflow is needed.
    """
    try:
        winner = best_run(context.runs, context.objective)
    except UserError as error:
        context.event_log.append("search_finished", status="completed")
        return SearchResult(context=context, status="completed", reason=str(error))
    observer.message(f"winner: trial {winner.label}; training the baseline for the same budget …")
    with (
        timer.step("baseline"),
        scoring_ahead(context, winner),
        observer.training(context, kind="baseline"),
    ):
        baseline = train_baseline(context)
    observer.message("evaluating on test …")
    with timer.step("test scores"):
        scores = evaluate_on_test(context, winner, baseline)
    named = named_scores(scores)
    context.event_log.append("search_finished", status="completed", test=named, steps=END_STEPS)
    result = SearchResult(context=context, status="completed", winner=winner, test_scores=scores)
    observer.show_scores(result)
    return _publish(result, winner, mlflow_sync, observer, timer)


def _publish(
    result: SearchResult,
    winner: Run,
    mlflow_sync: MlflowSync,
    observer: Observer,
    timer: StepTimer,
) -> SearchResult:
    """Register the winner and upload figures, each again if MLflow fails for a moment."""
    context = result.context

    def register() -> RegistrationOutcome:
        mlflow_sync.stop()
        mlflow_sync.sync()
        return register_winner(context, winner)

    def draw() -> None:
        mlflow_sync.sync()  # after a failure, the runs may have to be found again
        with observer.progress("drawing figures") as advance:
            publish_figures(context, mlflow_sync, progress=lambda i, n: advance(i, n, ""))

    try:
        with timer.step("registration"):
            registration = _take_step("registration", register, mlflow_sync, observer)
        result = replace(result, registration=registration)
        observer.show_registration(result)
        observer.message("drawing figures for MLflow …")
        with timer.step("figures"):
            _take_step("figures", draw, mlflow_sync, observer)
        with translate_mlflow_errors(mlflow_sync.tracking.uri):
            mlflow_sync.sync()  # takes in that the steps are done
    except MlflowUnavailableError as error:
        done = "registered" if result.registration is None else "complete in MLflow"
        reason = f"The winner is not {done} yet: {error}. Finish with:  {context.command('resume')}"
        observer.warning(reason)
        result = replace(result, reason=reason)
    return replace(result, seconds=timer.seconds)


def _take_step(
    name: str, action: Callable[[], Outcome], mlflow_sync: MlflowSync, observer: Observer
) -> Outcome:
    """Take a step that needs MLflow, again after a pause while it is locked or does not answer.

    Raises:
        MlflowUnavailableError: if it fails for another reason, or too often.
    """
    for wait in (*RETRY_WAITS_S, None):
        try:
            with translate_mlflow_errors(mlflow_sync.tracking.uri):
                outcome = action()
        except MlflowUnavailableError as error:
            if wait is None or error.code not in TRANSIENT_CODES:
                raise
            observer.message(f"{name}: {error}; trying again in {wait:.0f} s")
            time.sleep(wait)
        else:
            mlflow_sync.event_log.append("step_finished", step=name)
            return outcome
    raise AssertionError("the last attempt returns or raises")


def train_winner(context: SearchContext, observer: Observer) -> None:
    """Train the winner on the whole training part, since cross-validation keeps no network."""
    winner = best_run(context.runs, context.objective)
    observer.message(f"winner: trial {winner.label}; training it on the whole training part …")
    post = CheckpointHooks(
        context.paths.trials_dir / winner.id,
        on_restart=lambda why: observer.message(f"restarted from scratch; {why}"),
    )
    with single_threaded():
        for _ in run_with_checkpoints(winner.config, context.environment, post):
            pass
