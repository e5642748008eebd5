"""Runs a search to its end: trials, baseline, test scores, registration."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from types import MappingProxyType
from typing import NoReturn

import typer

from hpsearch.console.live_progress import Watch
from hpsearch.console.output import err, home_option, out, say
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import INTERRUPTED, UserError
from hpsearch.evaluation import Scores
from hpsearch.execution import ray_runtime, tuner
from hpsearch.execution.ray_runtime import head_watched, room
from hpsearch.execution.resumable_trial import Post, checkpointed
from hpsearch.execution.retry_policy import Halted
from hpsearch.execution.shutdown import heed_sigterm
from hpsearch.promotion.final_evaluation import best_run, judge_all, train_baseline
from hpsearch.promotion.registration import Outcome, register_winner
from hpsearch.promotion.retraining_plan import refuse_promotion
from hpsearch.promotion.score_cache import one_thread
from hpsearch.reporting.leaderboard import leaderboard, summary
from hpsearch.reporting.text_tables import (
    configurations,
    configurations_table,
    leaderboard_table,
    plain,
    summary_lines,
    yardstick_table,
)
from hpsearch.search.outcome import pareto_front
from hpsearch.search.search import Search, fixed_settings
from hpsearch.search.stopping import runs_are_out_of_patience
from hpsearch.search.warm_start import warm_start
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.connection import Refused, TrackingError, first_line
from hpsearch.tracking.mlflow_mapping import versions
from hpsearch.tracking.mlflow_sync import Publisher
from hpsearch.tracking.model_registry import quieten_mlflow
from hpsearch.tracking.run_state import Run
from hpsearch.workflows.publish_figures import publish_figures, yardsticks

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
    if not stated.extra_objectives:
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


def run(folder: SearchFolder) -> None:
    """Run the trials that are left, then end the search; Ctrl-C and SIGTERM keep everything."""
    refuse_promotion(folder)
    quieten_mlflow()
    heed_sigterm()
    publisher = folder.publisher()
    publisher.start()
    try:
        if not all_ended(folder):
            run_trials(folder)
        if folder.search().num_folds and any(r.status == "completed" for r in folder.runs()):
            train_winner(folder)
        finish(folder, publisher)
    except KeyboardInterrupt:
        _close_open_runs(folder)
        folder.ledger.append("finish", status="interrupted")
        raise
    finally:
        if not publisher.stop():
            err.print(
                f"MLflow has not had everything: {publisher.last_error or 'it is slow'}; send it "
                f"later with:  hpsearch sync {folder.name}{home_option(folder)}",
                markup=False,
                soft_wrap=True,
            )


def run_trials(folder: SearchFolder, *, command: str = "") -> None:
    """Run the trials with Ray and show how they do.

    Args:
        command: what goes on after an interruption; ``hpsearch resume NAME`` if empty.

    Raises:
        typer.Exit: if trials are left, unless a limit is the reason.
        Halted: if a disk is full.
    """
    stated, record = folder.search(), folder.record
    command = command or f"hpsearch resume {folder.name}{home_option(folder)}"
    if record.warm_from and not folder.runs():
        known, there = warm_start(folder, folder.workspace.open(record.warm_from))
        out.print(f"the sampler knows {known} of {there} trials of {record.warm_from}")
    ray_runtime.start_ray(address=record.address, cpus=record.cpus)
    heed_sigterm()  # again: Ray takes the signal
    try:
        with (
            _room(folder),
            Watch(folder.ledger, stated, out, record.trials),
            head_watched(lambda: _leave_without_head(folder, command)),
        ):
            session = tuner.run_session(folder)
    except Halted as error:
        with suppress(OSError):  # if there is room for that
            _close_open_runs(folder)
            folder.ledger.append("finish", status="interrupted")
        raise Halted(f"{error} with:  {command}") from error
    finally:
        ray_runtime.stop_ray()
    cut = _close_open_runs(folder)
    if not cut and (session.exhausted or all_ended(folder)):
        if runs_are_out_of_patience(folder.runs(), stated, forgiven=record.forgiven):
            out.print(f"{stated.patience} trials in a row improved nothing: the search ends here")
        return
    if session.limit:
        _say_limit(folder, session.limit, cut=cut, command=command)
    else:
        folder.ledger.append("finish", status="interrupted")
        out.print(f"Interrupted; nothing is lost. Go on with:  {command}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED)


def _room(folder: SearchFolder) -> AbstractContextManager[None]:
    """Nodes for the trials, asked for and waited for if the search was started so."""
    if not folder.record.wait:
        return nullcontext()
    return room(folder.resources(), folder.record.concurrent, say)


def _leave_without_head(folder: SearchFolder, command: str) -> NoReturn:
    """End here and now: the thread that runs Ray waits for a head that does not come."""
    _close_open_runs(folder)
    folder.ledger.append("finish", status="interrupted")
    say(
        f"The head of the cluster at {folder.record.address or 'this machine'} does not answer. "
        "Nothing is lost. Once there is one again (elsewhere: with --address), go on with:  "
        f"{command}"
    )
    out.file.flush()
    with suppress(Exception):  # whatever MLflow lacks, it gets at the next start
        folder.publisher().sync()
    os._exit(INTERRUPTED)


def _say_limit(folder: SearchFolder, limit: str, *, cut: int, command: str) -> None:
    """A search at its limit ends as any other, if it has something to show."""
    folder.ledger.append("limit", reason=limit)
    out.print(
        f"The limit of {limit} is reached (trials interrupted: {cut}). "
        f"With a larger one the search goes on:  {command}",
        soft_wrap=True,
    )
    if not any(run.status == "completed" for run in folder.runs()):
        folder.ledger.append("finish", status="interrupted")
        out.print("No trial completed within the limit, so there is no winner yet.")
        raise typer.Exit(INTERRUPTED)


def train_winner(folder: SearchFolder) -> None:
    """Folds leave no network behind: train the winner once on the whole training part."""
    winner = best_run(folder.runs(), folder.search().objective)
    out.print(f"winner: trial {winner.label}; training it on the whole training part …")
    post = Post(folder.trials / winner.id, anew=lambda why: say(f"it begins anew; {why}"))
    with one_thread():
        for _ in checkpointed(winner.config, folder.job(), post):
            pass


def all_ended(folder: SearchFolder) -> bool:
    """Whether no trial is left to train."""
    final = [run for run in folder.runs() if run.status not in ("running", "interrupted")]
    enough = sum(run.kind == "trial" for run in final) >= folder.record.trials
    forgiven = folder.record.forgiven
    return enough or runs_are_out_of_patience(folder.runs(), folder.search(), forgiven=forgiven)


def _close_open_runs(folder: SearchFolder) -> int:
    """Say of trials that did not end that they were interrupted; how many there are."""
    cut = [run for run in folder.runs() if run.status == "running"]
    for run in cut:
        folder.ledger.append("end", trial=run.id, status="interrupted")
    return len(cut)


def announce(folder: SearchFolder, stated: Search, store: PatchStore) -> None:
    """Write down what begins, and say it."""
    write_down(folder, stated, store)
    out.print(
        f"search {folder.name}: {folder.record.trials} trials of at most {stated.budget:,} patches "
        f"on {sum(store.counts):,} points of {store.path.stem}",
        soft_wrap=True,
    )
    split = folder.split()
    parts = ((p, split.part(p)) for p in ("train", "validation", "test"))  # type: ignore[arg-type]
    for part, names in parts:
        out.print(
            f"  {part:<10} {' '.join(names) if len(names) < 9 else f'{len(names)} sequences'}"
        )


def write_down(
    folder: SearchFolder,
    stated: Search,
    store: PatchStore,
    *,
    tags: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """The first event of a search.

    Args:
        tags: more of them for the search's run.
    """
    split = folder.split()
    reduction = getattr(stated.active_pruner, "reduction_factor", None)
    params = {
        "space": folder.record.space,
        "objective": ", ".join(objective.metric for objective in stated.objectives),
        "trials": folder.record.trials,
        "budget": stated.budget,
        "scheduler": stated.active_pruner.kind,
        "grace": stated.grace_patches,
        **({} if reduction is None else {"reduction": f"{reduction:g}"}),
        **({} if stated.num_folds is None else {"folds": stated.num_folds}),
        "sampler": stated.sampler.kind,
        "seeds": stated.seeds_per_point,
        **({} if stated.patience is None else {"patience": stated.patience}),
        **({} if folder.record.warm_from is None else {"warm_from": folder.record.warm_from}),
        "seed": stated.seed,
        "split": split.name,
    }
    dataset = {
        "name": store.path.stem,
        "fingerprint": store.fingerprint,
        "path": str(store.path.absolute()),
        "profile": json.dumps(
            {"sequences": len(store.names), "points": sum(store.counts), "split": split.name}
        ),
    }
    folder.ledger.append(
        "search",
        params=params,
        dataset=dataset,
        direction=stated.objective.direction,
        constants=fixed_settings(stated),
        tags={**versions(), **tags},
    )
