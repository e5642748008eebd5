"""Output of a promotion: its plan, the retrained configurations, and the registration."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hpsearch.config.formatting import diff_summaries
from hpsearch.console.output import out, print_plain
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import (
    HEADLINES,
    Comparison,
    Interval,
    format_bounds,
    intervals,
)
from hpsearch.promotion.promotion_search import Promotion, test_terms
from hpsearch.promotion.retraining_plan import RetrainingScale, all_gates, make_plan
from hpsearch.promotion.retraining_results import RetrainingResult
from hpsearch.reporting.text_tables import TextTable, format_duration, to_text
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.decision import CHAMPION, format_level, identify_test_set
from hpsearch.tracking.model_card import CardTable
from hpsearch.tracking.run_state import UNFINISHED

if TYPE_CHECKING:
    from hpsearch.promotion.registration import RegistrationOutcome, RegistrationRequest
    from hpsearch.workflows.promote_search import PromotionResult

MAX_TABLE_WIDTH = 120
"""Maximum width of a table, in characters."""


def print_plan(promotion: Promotion, *, dry_run: bool, reevaluate: bool = False) -> None:
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
    cost += f"{promotion.budget:,} patches{_scale_words(found.scale)}"
    if left < count:
        cost += f", {left} of them left" if left else ", all done"
    print_plain(f"{cost}{_time_left(promotion, left)}")
    for words in _champion_lines(promotion, read_only=dry_run, reevaluate=reevaluate):
        print_plain(words)
    gates = all_gates(parent.search, found)
    if gates:
        print_plain(f"to become champion it must keep: {', '.join(gates)}")
    if dry_run:
        print_plain("Dry run: nothing was trained, scored or registered.")


def _scale_words(scale: RetrainingScale) -> str:
    width = "" if scale.width is None else f" at width {scale.width:g}"
    return width if scale.data is None else f"{width} of {scale.data}"


def _champion_lines(promotion: Promotion, *, read_only: bool, reevaluate: bool) -> Iterator[str]:
    """Present champion, and the look at it that this promotion would be."""
    from hpsearch.tracking.model_registry import Registry, has_terms

    parent, model = promotion.parent, promotion.parent.record.model
    try:
        registry = Registry(tracking=parent.tracking(read_only=read_only), model=model)
    except UserError as error:
        if error.code != "no-mlflow-database":
            raise
        yield f"{model} has no champion"
        return
    data = promotion.data
    champion, names = registry.champion(), data.test_patches().names
    if champion is None:
        yield f"{registry.model} has no champion"
    else:
        origin = champion.tags.get("search", "an unknown search")
        yield f"{registry.model} champion: version {champion.version}, from {origin}"
    if len(names) < 2:
        yield "the test part has one sequence, which decides nothing: only --force makes a champion"
        return
    if champion is None:
        return
    terms = test_terms(data, promotion.plan.selected[0].config)
    if not (reevaluate or has_terms(champion, terms)):
        yield (
            "it was evaluated on other patches, so nothing is compared with it and it stays; "
            "--reevaluate evaluates it on these"
        )
    else:
        looks = registry.looks(champion, identify_test_set(terms, names))
        number = max(looks.values(), default=0) + 1
        yield (
            f"networks compared with it on these {len(names)} test sequences: {number - 1}; "
            f"another is look {number} and needs a {format_level(number)} interval above 0"
        )


def _plan_notes(promotion: Promotion) -> Iterator[str]:
    """Notes on a plan that differs from what the user may expect."""
    parent, found, child = promotion.parent, promotion.plan, promotion.child
    if len(found.selected) < found.top:
        yield f"{found.top} configurations requested; only {len(found.selected)} completed a trial"
    trials = [run for run in parent.runs if run.kind == "trial"]
    ended = sum(run.status not in UNFINISHED for run in trials)
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
    return sum(run.status not in UNFINISHED for run in runs)


def _time_left(promotion: Promotion, left: int) -> str:
    total, each = promotion.seconds_of(left), promotion.seconds_per_training
    if not left or total is None or each is None:
        return ""
    return (
        f": about {format_duration(total)} "
        f"({promotion.concurrency} at once, {format_duration(each)} each)"
    )


def print_promotion(result: "PromotionResult") -> None:
    """Print what a promotion found: the retrainings, the scores on test, and the decision."""
    parent = result.promotion.parent
    print_retraining_results(result.standings, result.entry, parent.objective.metric)
    print_promotion_scores(result.entry, result.registration)
    print_registration(parent, result.registration)


def print_retraining_results(
    results: list[RetrainingResult], request: "RegistrationRequest", metric: str
) -> None:
    assert request.trainings_table is not None, "a promotion has retrained configurations"
    print_plain(f"\nRetrained: {metric} on validation by seed")
    print_plain(to_text(_table_text(request.trainings_table, left=frozenset({"settings"}))))
    out.print(request.chosen_by, markup=False)


def print_promotion_scores(request: "RegistrationRequest", outcome: "RegistrationOutcome") -> None:
    """Print test scores of the network, the champion, their difference, and the baselines."""
    columns = {f"{request.context.name}/{request.run.label}": _interval_cells(request.scores)}
    champion, found = outcome.champion, outcome.comparisons
    if champion is not None and champion.scores is not None and found:
        columns[f"champion, version {champion.version}"] = _interval_cells(champion.scores)
        title = f"difference, {format_level(outcome.look)}"
        columns[title] = [_difference_cells(found[task]) for task in HEADLINES]
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
    return [f"{found[task].value:.3f}{_bounds_text(found[task], '.3f')}" for task in HEADLINES]


def _difference_cells(found: Comparison) -> str:
    return f"{found.difference:+.3f}{_bounds_text(found, '+.3f')}"


def _bounds_text(found: Interval | Comparison, style: str) -> str:
    bounds = format_bounds(found, style, between=", ")
    return f" [{bounds}]" if bounds else ""


def print_registration(parent: SearchContext, outcome: "RegistrationOutcome") -> None:
    print_plain(f"\n{outcome.model} version {outcome.version} {_alias_clause(outcome)}:")
    print_plain(f"  {outcome.decision.reason}")
    if outcome.alias != CHAMPION:
        print_plain(f"  use it as:  {outcome.address}")
    if outcome.champion is not None and outcome.champion.scores is None:
        command = parent.command("promote", "--reevaluate")
        print_plain(f"  compare on this search's test patches with:  {command}")
    if outcome.alias == CHAMPION and outcome.champion is not None:
        print_plain(f"  roll back with:  hpsearch rollback {outcome.model}{parent.home_option}")


def _alias_clause(outcome: "RegistrationOutcome") -> str:
    if outcome.alias == CHAMPION:
        return "is champion"
    stays = ", the champion stays" if outcome.champion is not None else ""
    return f"is challenger{stays}" if outcome.alias else f"gets no alias{stays}"


def _table_text(lines: CardTable, *, left: frozenset[str]) -> TextTable:
    return TextTable(lines.header, tuple(lines.rows), left)
