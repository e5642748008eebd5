"""What a Ray worker runs: one trial after another."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from hpsearch.atomic_files import is_disk_full
from hpsearch.config import TrialConfig
from hpsearch.execution.checkpoint_store import TrialPayload
from hpsearch.execution.cross_validation import run_cross_validation
from hpsearch.execution.preemption import stop_requested
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.execution.retry_policy import (
    describe_fullest_disk,
    format_trial_error,
    is_out_of_memory,
    is_transient,
)
from hpsearch.search.objective import Objective
from hpsearch.search.outcome import to_result
from hpsearch.training.loop import Report

DEVICE_OF_KIND = {"cpu": "cpu", "gpu": "cuda", "tpu": "xla"}


def train_on_worker(
    config: dict[str, Any], *, payload: TrialPayload, objective: Objective, folds: int | None
) -> None:
    """Train one trial, from its checkpoint if it has one; every report is finite.

    Tune ends the function at a report when the scheduler stops the trial, so the last result says
    ``running`` for a pruned trial and how it ended for any other. A trial that raises, or has to
    begin anew, says why in a report without an objective.
    """
    try:
        with (
            payload.checkpoint_dir(config["id"]) as folder,
            stop_requested(payload.is_shutting_down) as leave,
        ):
            post = CheckpointHooks(
                folder.path, folder.upload, leave, lambda why: tune.report({"anew": why})
            )
            for report in _iter_reports(config, payload, post, folds):
                tune.report(to_result(report, objective))
    except Exception as error:
        reported = _failure_report(error, payload)
        if reported:
            tune.report(reported)
        raise


def _iter_reports(
    config: dict[str, Any], payload: TrialPayload, hooks: CheckpointHooks, folds: int | None
) -> Iterator[Report]:
    job = payload.environment()
    device = job.computing.device
    if device == "auto":
        device = DEVICE_OF_KIND[config["place"]["kind"]]
    job = replace(job, computing=job.computing.model_copy(update={"device": device}))
    trial = TrialConfig.model_validate(config["trial"])
    return (
        run_cross_validation(trial, job, hooks, k=folds)
        if folds
        else run_with_checkpoints(trial, job, hooks)
    )


def _failure_report(error: Exception, payload: TrialPayload) -> dict[str, Any]:
    """What the driver must know; nothing, if another try may do."""
    if is_disk_full(error):
        root = Path(payload.job_fields["artifacts"].root)
        paths = (payload.checkpoints_dir, root, Path(tempfile.gettempdir()))
        return {"status": "interrupted", "full_disk": describe_fullest_disk(paths)}
    if is_transient(error):
        return {}
    return {
        "status": "failed",
        "reason": format_trial_error(error),
        "memory": is_out_of_memory(error),
    }
