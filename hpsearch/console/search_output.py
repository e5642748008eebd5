"""Output of a search: leaderboard, cost, test scores, registration, and the next commands."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpsearch.config.formatting import summary
from hpsearch.console.output import out, print_plain
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import compare, format_bounds
from hpsearch.reporting.leaderboard import Row, leaderboard, summarize
from hpsearch.reporting.text_tables import (
    MISSING_VALUE,
    TextTable,
    baseline_table,
    configurations_table,
    format_duration,
    group_configurations,
    leaderboard_table,
    summary_lines,
    to_text,
)
from hpsearch.search.outcome import hypervolume, pareto_front
from hpsearch.search.pruners import FreezeThaw
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.run_state import Run
from hpsearch.workflows.observer import SearchResult
from hpsearch.workflows.publish_figures import named_scores

if TYPE_CHECKING:
    from hpsearch.workflows.dry_run import DryRun

MAX_ROWS = 12
"""Rows of the leaderboard."""


def print_trials(
    context: SearchContext, *, rows: Sequence[Row] | None = None, limit: int | None = None
) -> None:
    """Print the leaderboard, and what the trials cost.

    Args:
        context: the search.
        rows: rows to print; None for the whole leaderboard.
        limit: maximum number of rows; None for ``MAX_ROWS``.
    """
    search, runs = context.search, context.runs
    direction = search.objective.direction
    every = leaderboard(runs, direction=direction) if rows is None else list(rows)
    rows = every[: MAX_ROWS if limit is None else limit]
    out.print(f"\nLeaderboard of {context.name} ({search.objective.metric} on validation)")
    print_plain(to_text(leaderboard_table(rows)) if rows else "no trial to show")
    if len(every) > len(rows):
        print_plain(f"{len(every) - len(rows)} more, with --all")
    for line in (*_constraint_lines(runs, search), *_pareto_lines(runs, search)):
        print_plain(line)
    means = group_configurations(runs, direction=direction)[:MAX_ROWS]
    if means:
        out.print("\nConfigurations, by their mean over training seeds")
        print_plain(to_text(configurations_table(means)))
    out.print()
    for line in summary_lines(summarize(runs, budget=search.budget)):
        print_plain(line)


def print_dry_run(found: "DryRun", home: Path) -> None:
    """Print what a search would do and cost."""
    plan, search = found.plan, found.plan.search
    pruner, rungs = search.active_pruner, ", ".join(f"{rung:,.0f}" for rung in found.rungs)
    stops = f"rungs at {rungs or 'none'}"
    if isinstance(pruner, FreezeThaw):
        stops = f"a trial may pause from {search.grace_patches:,} patches on"
    for what, value in (
        ("search", f"{plan.name}, in {home}"),
        ("data", f"{plan.store.path.stem}, split {plan.data.split.name}"),
        ("trials", f"{plan.record.trials}, {found.concurrent} at once"),
        ("patches", f"{search.budget:,} of a trial, at most {found.patches:,} of all"),
        ("pruner", f"{pruner.kind}, {stops}"),
        ("memory", f"about {found.memory_bytes / 2**30:.1f} GiB of a trial"),
        (
            "time",
            f"about {format_duration(found.seconds_per_trial)} of a whole trial, "
            f"{format_duration(found.expected_seconds)} of all, before baseline and test scores",
        ),
    ):
        print_plain(f"{what:<9} {value}")
    print_plain("drawn     " + "\n          ".join(summary(config) for config in found.examples))


def _constraint_lines(runs: list[Run], search: Search) -> Iterator[str]:
    """Lines with the constraints, and how many trials violate each at their last report."""
    ended = [
        run for run in runs if run.kind == "trial" and run.status in ("completed", "infeasible")
    ]
    for limit in search.limits:
        count = sum(limit.violation(run.last) > 0 for run in ended)
        yield f"Constraint {limit}: violated by {count} of {len(ended)} trials that were not pruned"


def _pareto_lines(runs: list[Run], search: Search) -> Iterator[str]:
    """Lines with the Pareto front, if the search has several objectives."""
    if not search.extra_objectives:
        return
    yield "\nPareto front: trials that no other beats in all objectives"
    for run in pareto_front(runs, search.objectives):
        values = (f"{o.metric} {run.last[o.metric]:.4g}" for o in search.objectives)
        yield f"  {run.label}  {'  '.join(values)}"
    volume = hypervolume(runs, search.objectives)
    if volume is not None:
        yield f"Hypervolume: {volume:.4f} of the box between the worst and the best of all trials"


def print_scores(scores: Mapping[str, Scores]) -> None:
    """Print the test scores of the winner and the baselines, and what the search gained.

    Args:
        scores: scores by name, the winner first.
    """
    out.print("\nmAP on the test sequences, which the search never read")
    names = named_scores(scores)
    print_plain(to_text(baseline_table(names)))
    if len(names) < 2:
        return
    winner, *others = scores.values()
    rows = [
        (name, *_gain_cells(winner, other))
        for name, other in zip(list(names)[1:], others, strict=True)
    ]
    out.print("\nGained by the search: mean mAP of the winner minus that of")
    header = ("", "gain", "95 % interval")
    print_plain(to_text(TextTable(header, tuple(rows), frozenset({""}))))


def _gain_cells(winner: Scores, other: Scores) -> tuple[str, str]:
    """Difference of the mean mAPs, and its interval over sequences, if there is one."""
    found = compare(winner, other)["mAP"]
    bounds = format_bounds(found, "+.3f", between=" … ") or MISSING_VALUE
    return f"{found.difference:+.3f}", bounds


def print_registration(result: SearchResult) -> None:
    """Print the registered version, and the next commands."""
    context, registered = result.context, result.registration
    if registered is not None:
        alias = f"as {registered.alias}" if registered.alias else "without an alias"
        print_plain(f"\nRegistered {registered.model} version {registered.version} {alias}:")
        print_plain(f"  {registered.decision.reason}")
    model = registered.address if registered else f"models:/{context.record.model}@champion"
    home = context.home_option
    out.print("\nNext")
    for command, purpose in (
        (f"hpsearch ui{home}", "browse the trials"),
        (context.command("report"), "the report as a page"),
        (context.command("promote"), "retrain the best, compare with the champion"),
        (f"hpsearch describe {model} mini --output descriptors{home}", "use the model"),
    ):
        print_plain(f"  {command:<70}  {purpose}")


def print_duration(result: SearchResult, total: float) -> None:
    """Print how long the command took, in all and step by step.

    Args:
        result: result of the search.
        total: wall-clock seconds since the command started.
    """
    steps = ", ".join(f"{name} {format_duration(s)}" for name, s in result.seconds.items())
    print_plain(f"\nFinished in {format_duration(total)}{f' ({steps})' if steps else ''}")
