"""What a Ray worker runs: one trial after another."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from hpsearch.atomic_files import is_full_disk
from hpsearch.config import TrialConfig
from hpsearch.execution.checkpoint_store import Luggage
from hpsearch.execution.cross_validation import folded
from hpsearch.execution.preemption import watched
from hpsearch.execution.resumable_trial import Post, checkpointed
from hpsearch.execution.retry_policy import full_disk, lacks_memory, may_pass, words
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import guarded
from hpsearch.training.loop import Report

DEVICES = {"cpu": "cpu", "gpu": "cuda", "tpu": "xla"}


def train(
    config: dict[str, Any], *, luggage: Luggage, objective: Objective, folds: int | None
) -> None:
    """Train one trial, from its checkpoint if it has one; every report is finite.

    Tune ends the function at a report when the scheduler stops the trial, so the last result says
    ``running`` for a pruned trial and how it ended for any other. A trial that raises, or has to
    begin anew, says why in a report without an objective.
    """
    try:
        with luggage.folder(config["id"]) as folder, watched(luggage.ended) as leave:
            post = Post(folder.path, folder.deliver, leave, lambda why: tune.report({"anew": why}))
            for report in _reports(config, luggage, post, folds):
                tune.report(guarded(report, objective))
    except Exception as error:
        said = _last_words(error, luggage)
        if said:
            tune.report(said)
        raise


def _reports(
    config: dict[str, Any], luggage: Luggage, post: Post, folds: int | None
) -> Iterator[Report]:
    job = luggage.job()
    device = job.computing.device
    if device == "auto":
        device = DEVICES[config["place"]["kind"]]
    job = replace(job, computing=job.computing.model_copy(update={"device": device}))
    trial = TrialConfig.model_validate(config["trial"])
    return folded(trial, job, post, k=folds) if folds else checkpointed(trial, job, post)


def _last_words(error: Exception, luggage: Luggage) -> dict[str, Any]:
    """What the driver must know; nothing, if another try may do."""
    if is_full_disk(error):
        root = Path(luggage.rest["artifacts"].root)
        places = (luggage.trials, root, Path(tempfile.gettempdir()))
        return {"status": "interrupted", "full_disk": full_disk(places)}
    if may_pass(error):
        return {}
    return {"status": "failed", "reason": words(error), "memory": lacks_memory(error)}
