"""Whether and how a search can go on."""

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpsearch.atomic_files import write_whole
from hpsearch.console.output import home_option, say
from hpsearch.errors import UserError
from hpsearch.execution.ray_runtime import LOCAL, start_ray
from hpsearch.promotion.final_evaluation import SCORES
from hpsearch.promotion.retraining_plan import refuse_promotion
from hpsearch.search.search import load_search
from hpsearch.search.stopping import Meter, runs_are_out_of_patience, telling
from hpsearch.search.warm_start import refuse_other_terms
from hpsearch.search.workspace import SearchFolder, Workspace
from hpsearch.tracking.run_state import Told
from hpsearch.workflows.run_search import all_ended


def open_again(name: str, home: Path, tracking_uri: str | None = None) -> SearchFolder:
    """A search that exists, with the patches that it began with."""
    folder = Workspace(home).open(name, tracking_uri=tracking_uri)
    refuse_promotion(folder)
    folder.store()
    return folder


def refuse_finished(folder: SearchFolder) -> None:
    """Make sure that there is something left to do.

    Raises:
        UserError: if the search has finished, or its limits leave it nothing.
    """
    if all_ended(folder) and _finished(folder):
        raise UserError(
            f"search {folder.name!r} has finished; add trials with "
            f"`hpsearch extend {folder.name} --trials 20{home_option(folder)}`"
        )
    if not all_ended(folder):
        _refuse_spent(folder)


def moved(folder: SearchFolder, address: str | None) -> SearchFolder:
    """The search on another cluster, once that has answered; None leaves it where it was.

    Raises:
        UserError: if there is no cluster at ``address``.
    """
    if address is None:
        return folder
    start_ray(address=address, cpus=folder.record.cpus)
    return folder.changed(address=None if address == LOCAL else address)


def extended(folder: SearchFolder, trials: int, **fields: Any) -> SearchFolder:
    """The search with more trials to train; who asks for more has patience anew.

    Args:
        trials: beside those that it had to train, or that it had begun when its patience ended.
        fields: more of its record that changes.

    Raises:
        UserError: if there are no more to try, or its limits leave it nothing.
    """
    stated, runs, record = folder.search(), folder.runs(), folder.record
    gave_up = runs_are_out_of_patience(runs, stated, forgiven=record.forgiven)
    before = sum(run.kind == "trial" for run in runs) if gave_up else record.trials
    after = stated.num_trials(before + trials)
    if after == before:
        raise UserError(
            f"search {folder.name!r} has no more to try: sampler {stated.sampler.kind!r} lists "
            f"{before} trials; raise seeds_per_point, or begin a search of another space"
        )
    changed = {"trials": after, "forgiven": len(telling(runs)), **fields}
    _refuse_spent(replace(folder, record=folder.record.model_copy(update=changed)))
    folder.ledger.append("extend", trials=after)
    return folder.changed(**changed)


def _refuse_spent(folder: SearchFolder) -> None:
    reached = Meter(folder.record.limits, folder.ledger).reached()
    if reached:
        raise UserError(
            f"search {folder.name!r} has spent its limit of {reached}; set a larger one with "
            "--patches or --gpu-seconds"
        )


def settle_space(folder: SearchFolder, choice: str | None) -> SearchFolder:
    """The search with the space that it goes on with, if the file has changed since it began.

    Raises:
        UserError: if it has and ``choice`` is neither ``keep`` nor ``take``, or if a search cannot
            go on with the new one.
    """
    if choice not in (None, "keep", "take"):
        raise UserError(f"--changed-space is keep or take, not {choice!r}")
    origin = Path(folder.record.origin or "")
    if not origin.is_file() or origin.read_bytes() == folder.space.read_bytes():
        return folder
    match choice:
        case "keep":
            return folder.changed(origin=None)
        case "take":
            refuse_other_terms(folder, load_search(origin))
            write_whole(folder.space, origin.read_bytes())
            return folder
    say(_difference(folder.space, origin))
    raise UserError(
        f"{origin.name} has changed since search {folder.name!r} began (above); "
        "--changed-space keep goes on as it began, --changed-space take with the new file"
    )


def _finished(folder: SearchFolder) -> bool:
    told = Told()
    for event in folder.ledger.events():
        told.hear(event)
    ended = told.finish is not None and told.finish["status"] == "completed"
    return ended and (folder.path / SCORES).exists()


def _difference(before: Path, now: Path) -> str:
    lines = [path.read_text().splitlines() for path in (before, now)]
    names = (f"{now.name} as it began", f"{now.name} now")
    return "\n".join(difflib.unified_diff(lines[0], lines[1], *names, lineterm=""))
