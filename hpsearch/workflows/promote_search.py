"""A promotion from its plan to its end."""

from hpsearch.console.output import err, home_option, out
from hpsearch.console.promotion_output import print_outcome, print_scores, print_standings
from hpsearch.evaluation import Scores
from hpsearch.promotion.final_evaluation import save_scores, trained
from hpsearch.promotion.promotion_search import Promotion, begin
from hpsearch.promotion.registration import Entry, Outcome, register, yardsticks_of
from hpsearch.promotion.retraining_plan import reasons, standings, table, typical
from hpsearch.promotion.score_cache import Gradebook
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.connection import reached
from hpsearch.tracking.mlflow_tags import BENEATH
from hpsearch.tracking.model_card import pipe_table
from hpsearch.tracking.run_state import Run
from hpsearch.workflows.run_search import all_ended, run_trials, write_down


def promote_search(promotion: Promotion, *, force: bool, reevaluate: bool) -> None:
    """Train what is left to train, score the pick, register it, print.

    Raises:
        UserError: if another process promotes this search.
    """
    child = begin(promotion)
    with child.alone():
        _train(promotion.parent, child)
        _put_up(promotion, child, force=force, reevaluate=reevaluate)


def _put_up(promotion: Promotion, child: SearchFolder, *, force: bool, reevaluate: bool) -> None:
    """The best configuration's network meets the champion."""
    objective = child.search().objective
    found = standings(promotion.plan, child.runs(), objective)
    pick = typical(found[0], objective)
    entry = Entry(
        folder=child,
        run=pick,
        scores=_judge(child, pick),
        beside=yardsticks_of(promotion.parent),
        chosen_by=reasons(found, pick, objective),
        trainings=table(found),
        parent=promotion.parent,
    )
    print_standings(found, entry, objective.metric)
    outcome = register(entry, force=force, reevaluate=reevaluate)
    _describe(child, entry, outcome)
    print_scores(entry, outcome)
    print_outcome(promotion.parent, outcome)


def _train(parent: SearchFolder, child: SearchFolder) -> None:
    """Run the trainings that are left, as a search beneath the one that is promoted."""
    if all_ended(child):
        return
    if not child.ledger.events():
        with reached(parent.tracking().uri):
            parent.publisher().sync()
        tags = {BENEATH: parent.ledger.identity(), "promotion_of": parent.name}
        write_down(child, child.search(), child.store(), tags=tags)
    publisher = child.publisher()
    publisher.start()
    try:
        run_trials(child, command=f"hpsearch promote {parent.name}{home_option(parent)}")
        child.ledger.append("finish", status="completed")
    finally:
        if not publisher.stop():
            err.print(f"MLflow has not had everything yet: {publisher.last_error}", markup=False)


def _judge(child: SearchFolder, pick: Run) -> Scores:
    """Test scores of the pick, and nobody else's."""
    book, noisy = Gradebook.of(child), pick.config.evaluate_on == "noisy"
    pipeline, name = trained(pick, child).pipeline(), f"{child.name}/{pick.label}"
    known = book.known(pipeline, noisy=noisy)
    out.print(
        f"test scores of {name} are known; test is not looked at again"
        if known
        else f"scoring {name} on test, once …"
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
