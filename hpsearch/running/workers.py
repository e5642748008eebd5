"""What a Ray worker runs: one trial after another."""

from dataclasses import replace
from typing import Any

from ray import tune

from hpsearch.config import TrialConfig
from hpsearch.running.checkpointed import checkpointed
from hpsearch.running.folds import folded
from hpsearch.running.keeper import Luggage
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import guarded

DEVICES = {"cpu": "cpu", "gpu": "cuda", "tpu": "xla"}


def train(
    config: dict[str, Any], *, luggage: Luggage, objective: Objective, folds: int | None
) -> None:
    """Train one trial, from its checkpoint if it has one; every report is finite.

    Tune ends the function at a report when the scheduler stops the trial, so the last result says
    ``running`` for a pruned trial and how it ended for any other.
    """
    job = luggage.job()
    device = job.computing.device
    if device == "auto":
        device = DEVICES[config["place"]["kind"]]
    job = replace(job, computing=job.computing.model_copy(update={"device": device}))
    trial = TrialConfig.model_validate(config["trial"])
    with luggage.folder(config["id"]) as folder:
        place = folder.path
        reports = folded(trial, job, place, k=folds) if folds else checkpointed(trial, job, place)
        for report in reports:
            folder.deliver()
            tune.report(guarded(report, objective))
