"""What a Ray worker runs: one trial after another, each report with its checkpoint."""

from pathlib import Path
from typing import Any

from ray import tune

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import guarded
from hpsearch.training.loop import Report
from hpsearch.training.trial import CHECKPOINT, Job, Trial, prepare_trial


def train(config: dict[str, Any], *, job: Job, objective: Objective, trials: Path) -> None:
    """Train one trial, from its checkpoint if it has one; every report is finite.

    Checkpoints are ours and not Tune's: after the driver died, Tune knows what its last snapshot
    knew, and by then it has deleted the checkpoint that the snapshot names. Ours is always the
    latest, and holds the last report, which is told again in case nobody heard it.

    Tune ends the function at a report when the scheduler stops the trial, so the last result says
    ``running`` for a pruned trial and how it ended for any other.
    """
    trial = prepare_trial(TrialConfig.model_validate(config["trial"]), job)
    folder = trials / tune.get_context().get_trial_id()
    said = _go_on(trial, folder)
    if said is not None:
        _tell(said, objective)
    for report in trial.reports():
        trial.save(folder, report)
        _tell(report, objective)


def _go_on(trial: Trial, folder: Path) -> Report | None:
    try:
        return trial.load(folder) if (folder / CHECKPOINT).exists() else None
    except UserError:
        return None  # a damaged checkpoint: begin again


def _tell(report: Report, objective: Objective) -> None:
    tune.report(guarded(report, objective))
