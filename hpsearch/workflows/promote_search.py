"""Promotion of a search: retrain its best configurations, evaluate once on test, register.

Heavy modules are imported inside functions, so that a plan is made without them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.execution.shutdown import install_termination_handlers
from hpsearch.promotion.promotion_search import Promotion, begin, prepare, test_terms
from hpsearch.promotion.retraining_plan import RetrainingScale, check_not_promotion
from hpsearch.promotion.retraining_results import (
    RetrainingResult,
    explain_selection,
    median_run,
    rank,
    retraining_table,
)
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.mlflow_errors import translate_mlflow_errors
from hpsearch.tracking.mlflow_tags import PARENT_SEARCH_ID
from hpsearch.tracking.model_card import markdown_table
from hpsearch.tracking.run_state import Run
from hpsearch.untrusted import name_from
from hpsearch.workflows.observer import Observer

if TYPE_CHECKING:
    from hpsearch.promotion.registration import RegistrationOutcome, RegistrationRequest


@dataclass(frozen=True, kw_only=True)
class PromotionResult:
    """Result of a promotion."""

    promotion: Promotion
    standings: list[RetrainingResult]
    """Retrained configurations, best mean on validation first."""
    entry: "RegistrationRequest"
    """Network that was submitted to the registry, with its test scores."""
    registration: "RegistrationOutcome"


class PromotionInterrupted(UserError):
    """Error when retrainings are left; the same promotion resumes them."""

    default_code = "promotion-interrupted"


def plan_promotion(
    name: str,
    *,
    top: int | None = None,
    seeds: int | None = None,
    budget: int | None = None,
    width: float | None = None,
    data: str | None = None,
    gates: Sequence[str] = (),
    address: str | None = None,
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
) -> Promotion:
    """Choose what the promotion of a search retrains; nothing is written.

    Args:
        name: name of the search.
        top: how many configurations to retrain; 3 if None.
        seeds: trainings of each, with new seeds; 3 if None.
        budget: patches seen by each training; as in the search if None.
        width: width of the descriptor network; as in the search if None.
        data: patches to train, validate and test on, as in ``run_search``; the search's if None.
        gates: limits that the network must keep to become champion, and the constraints and
            gates of the search, such as ``us_per_patch < 20`` or ``task_drop < 0.01``: no task
            worse than the champion's by 0.01 or more.
        address: another Ray cluster than the search's, or ``local`` for none.
        tracking_uri: address of MLflow; the search's own if None.
        home: folder of the search.
        observer: receives messages.

    Raises:
        UserError: if there is no such search, or none of its trials completed.
    """
    context = Workspace(Path(home)).open(name, tracking_uri=tracking_uri)
    check_not_promotion(context)
    from hpsearch.workflows.resume_search import switch_cluster

    observer = observer or Observer()
    store = None
    if data is not None:
        with observer.progress("building patches") as advance:
            store = Workspace(Path(home)).store(data, progress=advance)
    scale = RetrainingScale(
        budget=budget, width=width, data=None if store is None else name_from(store.path.stem)
    )
    return prepare(
        switch_cluster(context, address, observer),
        top=top,
        seeds=seeds,
        scale=scale,
        store=store,
        gates=gates,
    )


def promote(
    promotion: Promotion | str,
    *,
    force: bool = False,
    reevaluate: bool = False,
    observer: Observer | None = None,
) -> PromotionResult:
    """Retrain the best configurations of a search, evaluate the best of them on test, register it.

    Called again after an interruption it resumes; called again after its end it trains nothing and
    does not evaluate on test again.

    Args:
        promotion: a plan of ``plan_promotion``, or the name of a search in the default home.
        force: make it champion whatever the comparison shows.
        reevaluate: evaluate the champion on this search's test patches.
        observer: receives messages and progress.

    Raises:
        PromotionInterrupted: if retrainings are left.
        UserError: if another process promotes this search.
    """
    observer = observer or Observer()
    if isinstance(promotion, str):
        promotion = plan_promotion(promotion)

    from hpsearch.promotion.registration import RegistrationRequest, register_model
    from hpsearch.tracking.model_registry import configure_mlflow_logging

    configure_mlflow_logging()
    promotion.parent.tracking().check_experiment()
    child = begin(promotion)
    with child.lock():
        _retrain(promotion.parent, child, observer)
        install_termination_handlers()  # logging a model to a run that has ended reopens the run
        objective = child.objective
        found = rank(promotion.plan, child.runs, objective)
        pick = median_run(found[0], objective)
        entry = RegistrationRequest(
            context=child,
            run=pick,
            scores=_evaluate_on_test(child, pick, observer),
            baselines=_baselines(promotion.parent, child, pick),
            chosen_by=explain_selection(found, pick, objective),
            trainings_table=retraining_table(found),
            promoted_from=promotion.parent,
        )
        registration = register_model(entry, force=force, reevaluate=reevaluate)
        _set_descriptions(child, entry, registration)
    return PromotionResult(
        promotion=promotion, standings=found, entry=entry, registration=registration
    )


def _baselines(parent: SearchContext, child: SearchContext, pick: Run) -> dict[str, Scores]:
    """Test scores of the search's baselines and of the classical ones, by name."""
    from hpsearch.promotion.final_evaluation import evaluate_classical
    from hpsearch.promotion.registration import baseline_scores
    from hpsearch.promotion.score_cache import ScoreCache

    noisy = pick.config.evaluate_on == "noisy"
    classical = evaluate_classical(ScoreCache.for_search(child), noisy=noisy)
    same_test = test_terms(parent.data, pick.config) == test_terms(child.data, pick.config)
    return {**(baseline_scores(parent) if same_test else {}), **classical}


def _retrain(parent: SearchContext, child: SearchContext, observer: Observer) -> None:
    """Run the retrainings that are left, as a search whose parent is the promoted one."""
    if child.is_complete:
        return

    from hpsearch.workflows.run_search import log_search_started
    from hpsearch.workflows.search_session import close_session, run_trials

    if not child.event_log.events():
        with translate_mlflow_errors(parent.tracking().uri):
            parent.mlflow_sync().sync()
        tags = {PARENT_SEARCH_ID: parent.event_log.search_id(), "promotion_of": parent.name}
        log_search_started(child, child.search, child.store, tags=tags)
    mlflow_sync = child.mlflow_sync()
    mlflow_sync.start()
    try:
        interruption = run_trials(child, observer, command=parent.command("promote"))
        if interruption is not None:
            raise PromotionInterrupted(interruption)
        child.event_log.append("search_finished", status="completed")
    except BaseException:
        close_session(child)
        raise
    finally:
        if not mlflow_sync.stop():
            observer.warning(f"MLflow has not received everything yet: {mlflow_sync.last_error}")


def _evaluate_on_test(child: SearchContext, pick: Run, observer: Observer) -> Scores:
    """Evaluate the selected run on test, unless its scores are cached."""
    from hpsearch.promotion.final_evaluation import load_trained, save_scores
    from hpsearch.promotion.score_cache import ScoreCache

    score_cache, noisy = ScoreCache.for_search(child), pick.config.evaluate_on == "noisy"
    pipeline, name = load_trained(pick, child).pipeline(), f"{child.name}/{pick.label}"
    known = score_cache.is_cached(pipeline, noisy=noisy)
    observer.message(
        f"test scores of {name} are cached; it is not evaluated on test again"
        if known
        else f"evaluating {name} on test, once …"
    )
    scores = score_cache.scores(pipeline, noisy=noisy, name=name)
    save_scores(child, {pick.label: scores})
    return scores


def _set_descriptions(
    child: SearchContext, request: "RegistrationRequest", outcome: "RegistrationOutcome"
) -> None:
    """Set the description of the promotion's MLflow run."""
    assert request.trainings_table is not None, "a promotion has retrained configurations"
    mlflow_sync = child.mlflow_sync()
    table, reason = markdown_table(request.trainings_table), outcome.decision.reason
    text = f"{table}\n\n{request.chosen_by}\n\n{reason}"
    with translate_mlflow_errors(child.tracking().uri):
        mlflow_sync.sync()
        mlflow_sync.set_description(text)
