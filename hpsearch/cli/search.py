"""``hpsearch search`` and ``hpsearch resume``."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, err, out
from hpsearch.cli.data import progress_bar
from hpsearch.cli.ending import finish
from hpsearch.cli.figures import home_option
from hpsearch.cli.live import Watch
from hpsearch.config.flat import flatten
from hpsearch.data.store import PatchStore
from hpsearch.search.search import Search, load_search
from hpsearch.search.workspace import MODEL, SearchFolder, SearchRecord, Workspace
from hpsearch.tracking.registry import quieten_mlflow

INTERRUPTED = 130


@app.command(rich_help_panel="Search")
def search(
    space: Annotated[Path, typer.Argument(help="A Python file that exports SEARCH.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the search; the file's, if unset.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="mini, tiny, or the path of a store.")] = None,
    split: Annotated[str, typer.Option(help="auto, a, b, c, illum, view, mini, seeded.")] = "auto",
    trials: Annotated[int | None, typer.Option(min=1, help="Instead of the space's.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Trials at once.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs that Ray may use here.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster.")] = None,
    model: Annotated[str, typer.Option(help="Name in the model registry.")] = MODEL,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Search a space, judge the winner on test patches, and register it.

    Example: hpsearch search search_spaces/quickstart.py
    """
    stated = load_search(space)
    stated.rehearse()
    workspace = Workspace(home)
    chosen = name or workspace.free_name(space.stem)
    workspace.refuse_taken(chosen)
    with progress_bar("building patches") as advance:
        store = workspace.store(data or stated.data, progress=advance)
    store.part(store.split(split), "train")  # says now if the split has nothing to train on
    record = SearchRecord(
        space=str(space),
        store=str(store.path.absolute()),
        fingerprint=store.fingerprint,
        split=split,
        tracking_uri=workspace.tracking(tracking_uri).uri,
        model=model,
        trials=trials or stated.trials,
        concurrent=concurrent,
        cpus=cpus,
        address=address,
    )
    folder = workspace.create(chosen, space, record)
    _announce(folder, stated, store)
    run(folder, resume=False)


@app.command(rich_help_panel="Search")
def resume(
    name: Annotated[str, typer.Argument(help="Name of the search.")], home: Home = HOME
) -> None:
    """Go on with a search that was interrupted; what has ended stays as it is.

    Example: hpsearch resume quickstart
    """
    folder = Workspace(home).open(name)
    folder.store()
    run(folder, resume=True)


def run(folder: SearchFolder, *, resume: bool) -> None:
    """Run the trials, then end the search; Ctrl-C keeps everything."""
    quieten_mlflow()
    publisher = folder.publisher()
    publisher.start()
    try:
        if not _all_ended(folder):
            _run_trials(folder, resume=resume)
        finish(folder, publisher)
    finally:
        if not publisher.stop():
            err.print(f"MLflow has not had everything yet: {publisher.last_error}", markup=False)


def _run_trials(folder: SearchFolder, *, resume: bool) -> None:
    from hpsearch.search import ray_tune  # here: it takes two seconds that --help need not wait for

    stated, record = folder.search(), folder.record
    ray_tune.start_ray(address=record.address, cpus=record.cpus)
    began = time.monotonic()
    with Watch(folder.ledger, stated, out, record.trials):
        (ray_tune.resume_search if resume else ray_tune.run_search)(folder)
    ray_tune.stop_ray()
    limit = stated.time_limit
    time_is_up = limit is not None and time.monotonic() - began >= limit
    _close_open_runs(folder)
    if not _all_ended(folder) and not time_is_up:
        folder.ledger.append("finish", status="interrupted")
        out.print(
            "Interrupted; nothing is lost. Go on with:  "
            f"hpsearch resume {folder.name}{home_option(folder)}",
            soft_wrap=True,
        )
        raise typer.Exit(INTERRUPTED)


def _all_ended(folder: SearchFolder) -> bool:
    final = [run for run in folder.runs() if run.status not in ("running", "interrupted")]
    return sum(run.kind == "trial" for run in final) >= folder.record.trials


def _close_open_runs(folder: SearchFolder) -> None:
    for trial in folder.runs():
        if trial.status == "running":
            folder.ledger.append("end", trial=trial.id, status="interrupted")


def _announce(folder: SearchFolder, stated: Search, store: PatchStore) -> None:
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
        tags={"git.commit": _commit(), "python": sys.version.split()[0]},
    )
    out.print(
        f"search {folder.name}: {folder.record.trials} trials of at most {stated.budget:,} patches "
        f"on {sum(store.counts):,} points of {store.path.stem}",
        soft_wrap=True,
    )
    parts = ((p, split.part(p)) for p in ("train", "validation", "test"))  # type: ignore[arg-type]
    for part, names in parts:
        out.print(
            f"  {part:<10} {' '.join(names) if len(names) < 9 else f'{len(names)} sequences'}"
        )


def _commit() -> str:
    """The commit of the code, or ``unknown`` for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or os.environ.get("HPSEARCH_COMMIT", "unknown")
