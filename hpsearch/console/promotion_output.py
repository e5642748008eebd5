"""Output of a promotion: its plan, the retrained configurations, and the registration."""

from collections.abc import Iterator

from hpsearch.config.formatting import diff_summaries
from hpsearch.console.output import out, print_plain
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import HEADLINES, Comparison, intervals
from hpsearch.promotion.promotion_search import Promotion
from hpsearch.promotion.registration import RegistrationOutcome, RegistrationRequest
from hpsearch.promotion.retraining_plan import RetrainingResult, make_plan
from hpsearch.reporting.text_tables import TextTable, format_duration, to_text
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.model_card import CardTable
from hpsearch.tracking.model_registry import CHAMPION, Registry
from hpsearch.workflows.promote_search import PromotionResult

MAX_TABLE_WIDTH = 120
"""Maximum width of a table, in characters."""


def print_plan(promotion: Promotion, *, dry_run: bool) -> None:
    """Print the plan: configurations, number of trainings, duration, and champion."""
    parent, found = promotion.parent, promotion.plan
    count = len(found.configs)
    names = diff_summaries([one.config for one in found.selected])
    rows = [
        (one.trial, f"{one.objective:.4f}", name)
        for one, name in zip(found.selected, names, strict=True)
    ]
    metric = parent.objective.metric
    print_plain(
        f"Configurations of {parent.name} to retrain, best first by {metric} on validation:"
    )
    print_plain(
        to_text(TextTable(("trial", "in search", "settings"), tuple(rows), frozenset({"settings"})))
    )
    for words in _plan_notes(promotion):
        print_plain(words)
    left = count - _num_finished(promotion)
    cost = f"{len(found.selected)} × {found.seeds} seeds = {count} trainings of "
    cost += f"{parent.search.budget:,} patches"
    if left < count:
        cost += f", {left} of them left" if left else ", all done"
    print_plain(f"{cost}{_time_left(promotion, left)}")
    model = parent.record.model
    champion = Registry(tracking=parent.tracking(read_only=dry_run), model=model).champion()
    if champion is None:
        print_plain(f"{model} has no champion")
    else:
        origin = champion.tags.get("search", "an unknown search")
        print_plain(f"{model} champion: version {champion.version}, from {origin}")
    if dry_run:
        print_plain("Dry run: nothing was trained, scored or registered.")


def _plan_notes(promotion: Promotion) -> Iterator[str]:
    """Notes on a plan that differs from what the user may expect."""
    parent, found, child = promotion.parent, promotion.plan, promotion.child
    if len(found.selected) < found.top:
        yield f"{found.top} configurations requested; only {len(found.selected)} completed a trial"
    trials = [run for run in parent.runs if run.kind == "trial"]
    ended = sum(run.status not in ("running", "interrupted") for run in trials)
    if child is None and ended < parent.record.trials:
        yield f"{ended} of {parent.record.trials} trials of {parent.name} have ended so far"
    if child is not None:
        objective = parent.objective
        now = make_plan(parent.name, trials, objective, top=found.top, seeds=found.seeds)
        if now.selected != found.selected:
            yield f"{parent.name} has new trials since; remove {child.paths.folder} to select again"


def _num_finished(promotion: Promotion) -> int:
    if promotion.child is None:
        return 0
    runs = promotion.child.runs
    return sum(run.status not in ("running", "interrupted") for run in runs)


def _time_left(promotion: Promotion, left: int) -> str:
    if not left or promotion.seconds_per_training is None:
        return ""
    rounds = -(-left // promotion.concurrency)
    each = format_duration(promotion.seconds_per_training)
    return (
        f": about {format_duration(rounds * promotion.seconds_per_training)} "
        f"({promotion.concurrency} at once, {each} each)"
    )


def print_promotion(result: PromotionResult) -> None:
    """Print what a promotion found: the retrainings, the scores on test, and the decision."""
    parent = result.promotion.parent
    print_retraining_results(result.standings, result.entry, parent.objective.metric)
    print_promotion_scores(result.entry, result.registration)
    print_registration(parent, result.registration)


def print_retraining_results(
    results: list[RetrainingResult], request: RegistrationRequest, metric: str
) -> None:
    assert request.trainings_table is not None, "a promotion has retrained configurations"
    print_plain(f"\nRetrained: {metric} on validation by seed")
    print_plain(to_text(_table_text(request.trainings_table, left=frozenset({"settings"}))))
    out.print(request.chosen_by, markup=False)


def print_promotion_scores(request: RegistrationRequest, outcome: RegistrationOutcome) -> None:
    """Print test scores of the network, the champion, their difference, and the baselines."""
    columns = {f"{request.context.name}/{request.run.label}": _interval_cells(request.scores)}
    champion, found = outcome.champion, outcome.comparisons
    if champion is not None and champion.scores is not None and found:
        columns[f"champion, version {champion.version}"] = _interval_cells(champion.scores)
        columns["difference"] = [_difference_cells(found[task]) for task in HEADLINES]
    for name, scores in request.baselines.items():
        flat = scores.flat()
        columns[name.split()[0]] = [f"{flat[task]:.3f}" for task in HEADLINES]
    rows = zip((*HEADLINES[:3], "mean"), *columns.values(), strict=True)
    print_plain("\nmAP on test with 95 % intervals over sequences")
    print_plain(
        to_text(TextTable(("", *columns), tuple(rows), frozenset({""})), width=MAX_TABLE_WIDTH)
    )


def _interval_cells(scores: Scores) -> list[str]:
    found = intervals(scores)
    bounds = (found[task] for task in HEADLINES)
    return [f"{b.value:.3f} [{b.low:.3f}, {b.high:.3f}]" for b in bounds]


def _difference_cells(found: Comparison) -> str:
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def print_registration(parent: SearchContext, outcome: RegistrationOutcome) -> None:
    verb = "is champion" if outcome.alias == CHAMPION else "is challenger, the champion stays"
    print_plain(f"\n{outcome.model} version {outcome.version} {verb}:")
    print_plain(f"  {outcome.decision.reason}")
    if outcome.champion is not None and outcome.champion.scores is None:
        command = parent.command("promote", "--reevaluate")
        print_plain(f"  compare on this search's test patches with:  {command}")
    if outcome.alias == CHAMPION and outcome.champion is not None:
        print_plain(f"  roll back with:  hpsearch rollback {outcome.model}{parent.home_option}")


def _table_text(lines: CardTable, *, left: frozenset[str]) -> TextTable:
    return TextTable(lines.header, tuple(lines.rows), left)
