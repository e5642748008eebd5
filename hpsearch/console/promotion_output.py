"""What a promotion prints: its plan, how the configurations did, and what became of the pick."""

from collections.abc import Iterator

from hpsearch.config.formatting import differences
from hpsearch.console.output import out, say
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import HEADLINES, Comparison, intervals
from hpsearch.promotion.promotion_search import Promotion
from hpsearch.promotion.registration import Entry, Outcome, registry_of
from hpsearch.promotion.retraining_plan import Standing, plan
from hpsearch.reporting.text_tables import Table, duration, plain
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.model_card import Lines
from hpsearch.tracking.model_registry import CHAMPION
from hpsearch.workflows.promote_search import PromotionResult

WIDEST = 120
"""Columns of the widest table."""


def print_plan(promotion: Promotion, *, dry_run: bool) -> None:
    """Which configurations, how many trainings, how long, and who is champion."""
    parent, found = promotion.parent, promotion.plan
    count = len(found.configs)
    names = differences([one.config for one in found.chosen])
    rows = [
        (one.trial, f"{one.objective:.4f}", name)
        for one, name in zip(found.chosen, names, strict=True)
    ]
    metric = parent.search().objective.metric
    say(f"Configurations of {parent.name} to train again, best first by {metric} on validation:")
    say(plain(Table(("trial", "in search", "settings"), tuple(rows), frozenset({"settings"}))))
    for words in _notes(promotion):
        say(words)
    left = count - _ended(promotion)
    cost = f"{len(found.chosen)} × {found.seeds} seeds = {count} trainings of "
    cost += f"{parent.search().budget:,} patches"
    if left < count:
        cost += f", {left} of them left" if left else ", all done"
    say(f"{cost}{_time(promotion, left)}")
    champion = registry_of(parent).champion()
    model = parent.record.model
    if champion is None:
        say(f"{model} has no champion")
    else:
        origin = champion.tags.get("search", "an unknown search")
        say(f"{model} champion: version {champion.version}, from {origin}")
    if dry_run:
        say("Dry run: nothing was trained, scored or registered.")


def _notes(promotion: Promotion) -> Iterator[str]:
    """What may surprise about the configurations."""
    parent, found, child = promotion.parent, promotion.plan, promotion.child
    if len(found.chosen) < found.top:
        yield f"{found.top} were asked for; {len(found.chosen)} completed a trial"
    trials = [run for run in parent.runs() if run.kind == "trial"]
    ended = sum(run.status not in ("running", "interrupted") for run in trials)
    if child is None and ended < parent.record.trials:
        yield f"{ended} of {parent.record.trials} trials of {parent.name} have ended so far"
    if child is not None:
        objective = parent.search().objective
        now = plan(parent.name, trials, objective, top=found.top, seeds=found.seeds)
        if now.chosen != found.chosen:
            yield f"{parent.name} has gone on since; remove {child.path} to choose again"


def _ended(promotion: Promotion) -> int:
    if promotion.child is None:
        return 0
    runs = promotion.child.runs()
    return sum(run.status not in ("running", "interrupted") for run in runs)


def _time(promotion: Promotion, left: int) -> str:
    if not left or promotion.seconds is None:
        return ""
    rounds = -(-left // promotion.at_once)
    each = duration(promotion.seconds)
    return (
        f": about {duration(rounds * promotion.seconds)} ({promotion.at_once} at once, {each} each)"
    )


def print_promotion(result: PromotionResult) -> None:
    """Print what a promotion found: the retrainings, the scores on test, and the decision."""
    parent = result.promotion.parent
    print_standings(result.standings, result.entry, parent.search().objective.metric)
    print_scores(result.entry, result.registration)
    print_outcome(parent, result.registration)


def print_standings(found: list[Standing], entry: Entry, metric: str) -> None:
    assert entry.trainings is not None, "a promotion has trained again"
    say(f"\nTrained again: {metric} on validation by seed")
    say(plain(_text(entry.trainings, left=frozenset({"settings"}))))
    out.print(entry.chosen_by, markup=False)


def print_scores(entry: Entry, outcome: Outcome) -> None:
    """The network on test beside the champion, their difference, and the yardsticks."""
    columns = {f"{entry.folder.name}/{entry.run.label}": _intervals(entry.scores)}
    rival, found = outcome.rival, outcome.comparisons
    if rival is not None and rival.scores is not None and found:
        columns[f"champion, version {rival.version}"] = _intervals(rival.scores)
        columns["difference"] = [_difference(found[task]) for task in HEADLINES]
    for name, scores in entry.beside.items():
        flat = scores.flat()
        columns[name.split()[0]] = [f"{flat[task]:.3f}" for task in HEADLINES]
    rows = zip((*HEADLINES[:3], "mean"), *columns.values(), strict=True)
    say("\nmAP on test with 95 % intervals over sequences")
    say(plain(Table(("", *columns), tuple(rows), frozenset({""})), width=WIDEST))


def _intervals(scores: Scores) -> list[str]:
    found = intervals(scores)
    bounds = (found[task] for task in HEADLINES)
    return [f"{b.value:.3f} [{b.low:.3f}, {b.high:.3f}]" for b in bounds]


def _difference(found: Comparison) -> str:
    return f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def print_outcome(parent: SearchFolder, outcome: Outcome) -> None:
    verb = "is champion" if outcome.alias == CHAMPION else "is challenger, the champion stays"
    say(f"\n{outcome.model} version {outcome.version} {verb}:")
    say(f"  {outcome.decision.reason}")
    if outcome.rival is not None and outcome.rival.scores is None:
        command = parent.command("promote", "--reevaluate")
        say(f"  compare on this search's test patches with:  {command}")
    if outcome.alias == CHAMPION and outcome.rival is not None:
        say(f"  go back with:  hpsearch rollback {outcome.model}{parent.home_option}")


def _text(lines: Lines, *, left: frozenset[str]) -> Table:
    return Table(lines.header, tuple(lines.rows), left)
