"""What a Ray worker runs: one trial after another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from hpsearch.config import TrialConfig
from hpsearch.search.checkpointed import checkpointed
from hpsearch.search.folds import folded
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import guarded
from hpsearch.training.trial import Job

DEVICES = {"cpu": "cpu", "gpu": "cuda", "tpu": "xla"}


def train(
    config: dict[str, Any], *, job: Job, objective: Objective, trials: Path, folds: int | None
) -> None:
    """Train one trial, from its checkpoint if it has one; every report is finite.

    Tune ends the function at a report when the scheduler stops the trial, so the last result says
    ``running`` for a pruned trial and how it ended for any other.
    """
    device = job.computing.device
    if device == "auto":
        device = DEVICES[config["place"]["kind"]]
    job = replace(job, computing=job.computing.model_copy(update={"device": device}))
    trial, folder = TrialConfig.model_validate(config["trial"]), trials / config["id"]
    reports = folded(trial, job, folder, k=folds) if folds else checkpointed(trial, job, folder)
    for report in reports:
        tune.report(guarded(report, objective))
