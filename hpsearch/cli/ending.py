"""What happens when the last trial has ended, and what is printed then."""

from collections.abc import Iterator

from hpsearch.cli.app import err, out, say
from hpsearch.cli.figures import home_option, publish_figures, yardsticks
from hpsearch.cli.live import Watch
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.promotion.registering import Outcome, register_winner
from hpsearch.promotion.winner import (
    best_run,
    judge_all,
    train_baseline,
)
from hpsearch.reporting.configurations import configurations, configurations_table
from hpsearch.reporting.tables import leaderboard, summary
from hpsearch.reporting.text import leaderboard_table, plain, summary_lines, yardstick_table
from hpsearch.search.pareto import pareto_front
from hpsearch.search.search import Search
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.publisher import Publisher, TrackingError
from hpsearch.tracking.refusals import Refused, first_line
from hpsearch.tracking.runs import Run

SHOWN = 12


def finish(folder: SearchFolder, publisher: Publisher) -> None:
    """Train the baseline, judge on test, register, publish, print."""
    stated = folder.search()
    try:
        winner = best_run(folder.runs(), stated.objective)
    except UserError:
        folder.ledger.append("finish", status="completed")
        print_trials(folder)
        raise
    out.print(f"winner: trial {winner.label}; training the baseline for the same budget …")
    with Watch(folder.ledger, stated, out, folder.record.trials, kind="yardstick"):
        baseline = train_baseline(folder)
    out.print("judging on test …")
    scores = judge_all(folder, winner, baseline)
    folder.ledger.append("finish", status="completed", test=yardsticks(scores))
    outcome = _register(folder, publisher, winner)
    print_trials(folder)
    print_scores(scores)
    _print_outcome(folder, outcome)


def print_trials(folder: SearchFolder) -> None:
    """The leaderboard, and what the trials cost."""
    stated, runs = folder.search(), folder.runs()
    rows = leaderboard(runs, direction=stated.objective.direction, limit=SHOWN)
    out.print(f"\nLeaderboard of {folder.name} ({stated.objective.metric} on validation)")
    say(plain(leaderboard_table(rows)))
    for line in _front(runs, stated):
        say(line)
    means = configurations(runs, direction=stated.objective.direction)[:SHOWN]
    if means:
        out.print("\nConfigurations, by their mean over training seeds")
        say(plain(configurations_table(means)))
    out.print()
    for line in summary_lines(summary(runs, budget=stated.budget)):
        say(line)


def _front(runs: list[Run], stated: Search) -> Iterator[str]:
    """With several objectives, the trials that no other beats in all of them."""
    if not stated.also:
        return
    yield "\nTrials that no other beats in all objectives"
    for run in pareto_front(runs, stated.objectives):
        values = (f"{o.metric} {run.last[o.metric]:.4g}" for o in stated.objectives)
        yield f"  {run.label}  {'  '.join(values)}"


def print_scores(scores: dict[str, Scores]) -> None:
    """The winner beside the yardsticks, on test."""
    out.print("\nmAP on the test sequences, which the search never read")
    say(plain(yardstick_table(yardsticks(scores))))


def _register(folder: SearchFolder, publisher: Publisher, winner: Run) -> Outcome | None:
    try:
        publisher.stop()
        publisher.sync()
        outcome = register_winner(folder, winner)
        publish_figures(folder, publisher)
    except (TrackingError, Refused, OSError) as error:
        err.print(
            f"The winner is not registered: {first_line(error)}. Go on with:  "
            f"hpsearch promote {folder.name}{home_option(folder)}",
            soft_wrap=True,
            markup=False,
        )
        return None
    return outcome


def _print_outcome(folder: SearchFolder, outcome: Outcome | None) -> None:
    home = home_option(folder)
    if outcome is not None:
        say(f"\nRegistered {outcome.model} version {outcome.version} as {outcome.alias}:")
        say(f"  {outcome.decision.reason}")
    model = f"models:/{folder.record.model}@{outcome.alias if outcome else 'champion'}"
    out.print("\nNext")
    for command, why in (
        (f"hpsearch ui{home}", "browse the trials"),
        (f"hpsearch report {folder.name}{home}", "the report as a page"),
        (f"hpsearch promote {folder.name}{home}", "train the best again, meet the champion"),
        (f"hpsearch describe {model} mini --to descriptors{home}", "use the model"),
    ):
        say(f"  {command:<70}  {why}")
