"""Running a search: begin, follow, end, and go on after an interruption."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import typer

from hpsearch.cli.app import err, out
from hpsearch.cli.ending import finish
from hpsearch.cli.figures import home_option
from hpsearch.cli.live import Watch
from hpsearch.config.flat import flatten
from hpsearch.data.store import PatchStore
from hpsearch.search import ray_tune
from hpsearch.search.patience import runs_are_out_of_patience
from hpsearch.search.promotion import refuse_promotion
from hpsearch.search.search import Search
from hpsearch.search.warm import warm_start
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.registry import quieten_mlflow

INTERRUPTED = 130


def run(folder: SearchFolder, *, resume: bool) -> None:
    """Run the trials, then end the search; Ctrl-C keeps everything."""
    refuse_promotion(folder)
    quieten_mlflow()
    publisher = folder.publisher()
    publisher.start()
    try:
        if not all_ended(folder):
            run_trials(folder, resume=resume)
        finish(folder, publisher)
    finally:
        if not publisher.stop():
            err.print(f"MLflow has not had everything yet: {publisher.last_error}", markup=False)


def run_trials(folder: SearchFolder, *, resume: bool, command: str = "") -> None:
    """Run the trials with Ray and show how they do.

    Args:
        command: what goes on after an interruption; ``hpsearch resume NAME`` if empty.
    """
    stated, record = folder.search(), folder.record
    if record.warm_from and not folder.runs():
        known, there = warm_start(folder, folder.workspace.open(record.warm_from))
        out.print(f"the sampler knows {known} of {there} trials of {record.warm_from}")
    ray_tune.start_ray(address=record.address, cpus=record.cpus)
    began = time.monotonic()
    with Watch(folder.ledger, stated, out, record.trials):
        (ray_tune.resume_search if resume else ray_tune.run_search)(folder)
    ray_tune.stop_ray()
    limit = stated.time_limit
    time_is_up = limit is not None and time.monotonic() - began >= limit
    _close_open_runs(folder)
    if not all_ended(folder) and not time_is_up:
        folder.ledger.append("finish", status="interrupted")
        out.print(
            "Interrupted; nothing is lost. Go on with:  "
            f"{command or f'hpsearch resume {folder.name}'}{home_option(folder)}",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED)


def all_ended(folder: SearchFolder) -> bool:
    """Whether no trial is left to train."""
    final = [run for run in folder.runs() if run.status not in ("running", "interrupted")]
    enough = sum(run.kind == "trial" for run in final) >= folder.record.trials
    return enough or runs_are_out_of_patience(folder.runs(), folder.search())


def _close_open_runs(folder: SearchFolder) -> None:
    for trial in folder.runs():
        if trial.status == "running":
            folder.ledger.append("end", trial=trial.id, status="interrupted")


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
    params = {
        "space": folder.record.space,
        "objective": stated.objective.metric,
        "trials": folder.record.trials,
        "budget": stated.budget,
        "grace": stated.first_rung,
        "reduction": stated.reduction,
        "sampler": stated.sampler,
        "seed": stated.seed,
        "split": split.name,
        **{f"baseline.{key}": value for key, value in flatten(stated.baseline).items()},
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
        tags={"git.commit": _commit(), "python": sys.version.split()[0], **tags},
    )


def _commit() -> str:
    """The commit of the code, or ``unknown`` for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or os.environ.get("HPSEARCH_COMMIT", "unknown")
