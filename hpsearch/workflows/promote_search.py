"""Promotion of a search: retrain its best configurations, evaluate once on test, register."""

from dataclasses import dataclass
from pathlib import Path

from hpsearch.defaults import HOME
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.promotion.final_evaluation import save_scores, trained
from hpsearch.promotion.promotion_search import Promotion, begin, prepare
from hpsearch.promotion.registration import Entry, Outcome, register, yardsticks_of
from hpsearch.promotion.retraining_plan import (
    Standing,
    reasons,
    refuse_promotion,
    standings,
    table,
    typical,
)
from hpsearch.promotion.score_cache import Gradebook
from hpsearch.search.workspace import SearchFolder, Workspace
from hpsearch.tracking.connection import reached
from hpsearch.tracking.mlflow_tags import BENEATH
from hpsearch.tracking.model_card import pipe_table
from hpsearch.tracking.model_registry import quieten_mlflow
from hpsearch.tracking.run_state import Run
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.resume_search import moved
from hpsearch.workflows.run_search import log_search_started
from hpsearch.workflows.search_session import all_ended, run_trials


@dataclass(frozen=True, kw_only=True)
class PromotionResult:
    """What a promotion found."""

    promotion: Promotion
    standings: list[Standing]
    """The configurations that were retrained, best mean on validation first."""
    entry: Entry
    """The network that was put forward, with its scores on test."""
    registration: Outcome


class PromotionInterrupted(UserError):
    """Retrainings are left; the same promotion resumes."""


def plan_promotion(
    name: str,
    *,
    top: int | None = None,
    seeds: int | None = None,
    address: str | None = None,
    tracking_uri: str | None = None,
    home: str | Path = HOME,
    observer: Observer | None = None,
) -> Promotion:
    """Choose what the promotion of a search retrains; nothing is written.

    Args:
        name: name of the search.
        top: how many configurations to retrain; 3 if None.
        seeds: trainings of each, with new seeds; 3 if None.
        address: another Ray cluster than the search's, or ``local`` for none.
        tracking_uri: address of MLflow; the search's own if None.
        home: folder of the search.
        observer: receives messages.

    Raises:
        UserError: if there is no such search, or none of its trials completed.
    """
    folder = Workspace(Path(home)).open(name, tracking_uri=tracking_uri)
    refuse_promotion(folder)
    return prepare(moved(folder, address, observer or Observer()), top=top, seeds=seeds)


def promote(
    promotion: Promotion | str,
    *,
    force: bool = False,
    reevaluate: bool = False,
    observer: Observer | None = None,
) -> PromotionResult:
    """Retrain the best configurations of a search, evaluate the best of them on test, register it.

    Called again after an interruption it resumes; called again after its end it trains nothing and
    does not look at test again.

    Args:
        promotion: a plan of ``plan_promotion``, or the name of a search in the default home.
        force: make it champion whatever the comparison says.
        reevaluate: evaluate the champion on this search's test patches.
        observer: receives messages and progress.

    Raises:
        PromotionInterrupted: if retrainings are left.
        UserError: if another process promotes this search.
    """
    observer = observer or Observer()
    if isinstance(promotion, str):
        promotion = plan_promotion(promotion)
    quieten_mlflow()
    child = begin(promotion)
    with child.alone():
        _retrain(promotion.parent, child, observer)
        objective = child.search().objective
        found = standings(promotion.plan, child.runs(), objective)
        pick = typical(found[0], objective)
        entry = Entry(
            folder=child,
            run=pick,
            scores=_evaluate_on_test(child, pick, observer),
            beside=yardsticks_of(promotion.parent),
            chosen_by=reasons(found, pick, objective),
            trainings=table(found),
            parent=promotion.parent,
        )
        registration = register(entry, force=force, reevaluate=reevaluate)
        _describe(child, entry, registration)
    return PromotionResult(
        promotion=promotion, standings=found, entry=entry, registration=registration
    )


def _retrain(parent: SearchFolder, child: SearchFolder, observer: Observer) -> None:
    """Run the retrainings that are left, as a search whose parent is the promoted one."""
    if all_ended(child):
        return
    if not child.ledger.events():
        with reached(parent.tracking().uri):
            parent.publisher().sync()
        tags = {BENEATH: parent.ledger.identity(), "promotion_of": parent.name}
        log_search_started(child, child.search(), child.store(), tags=tags)
    publisher = child.publisher()
    publisher.start()
    try:
        interruption = run_trials(child, observer, command=parent.command("promote"))
        if interruption is not None:
            raise PromotionInterrupted(interruption)
        child.ledger.append("finish", status="completed")
    finally:
        if not publisher.stop():
            observer.warning(f"MLflow has not received everything yet: {publisher.last_error}")


def _evaluate_on_test(child: SearchFolder, pick: Run, observer: Observer) -> Scores:
    """Test scores of the pick alone."""
    book, noisy = Gradebook.of(child), pick.config.evaluate_on == "noisy"
    pipeline, name = trained(pick, child).pipeline(), f"{child.name}/{pick.label}"
    known = book.known(pipeline, noisy=noisy)
    observer.message(
        f"test scores of {name} are known; test is not looked at again"
        if known
        else f"evaluating {name} on test, once …"
    )
    scores = book.scores(pipeline, noisy=noisy, who=name)
    save_scores(child, {pick.label: scores})
    return scores


def _describe(child: SearchFolder, entry: Entry, outcome: Outcome) -> None:
    """What MLflow shows on the promotion's page."""
    assert entry.trainings is not None, "a promotion has trained again"
    publisher = child.publisher()
    text = f"{pipe_table(entry.trainings)}\n\n{entry.chosen_by}\n\n{outcome.decision.reason}"
    with reached(child.tracking().uri):
        publisher.sync()
        publisher.describe(text)
