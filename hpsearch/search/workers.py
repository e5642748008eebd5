"""What a Ray worker runs: one trial after another, each report with its checkpoint."""

import tempfile
from pathlib import Path
from typing import Any

from ray import tune

from hpsearch.config import TrialConfig
from hpsearch.search.objective import Objective
from hpsearch.training.loop import Report
from hpsearch.training.trial import Job, Trial, prepare_trial


def train(config: dict[str, Any], *, job: Job, objective: Objective) -> None:
    """Train one trial, from its checkpoint if it has one; every report is finite.

    Tune ends the function at a report when the scheduler stops the trial, so the last result says
    ``running`` for a pruned trial and how it ended for any other.
    """
    trial = prepare_trial(TrialConfig.model_validate(config["trial"]), job)
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            trial.load(Path(folder))
    for report in trial.reports():
        _tell(report, trial, objective)


def _tell(report: Report, trial: Trial, objective: Objective) -> None:
    failed = report.status in ("collapsed", "diverged")
    collapsed = failed or report.metrics.get("val/collapsed", 0.0) > 0
    result = {
        "seen": report.seen,
        "objective": objective.value(report.metrics, collapsed=collapsed),
        "status": report.status,
        "reason": report.reason,
        "metrics": report.metrics,
    }
    with tempfile.TemporaryDirectory() as folder:
        trial.save(Path(folder))
        tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))
