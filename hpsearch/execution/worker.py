"""Entry point of Ray workers: training of one trial."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune

from hpsearch.atomic_files import is_disk_full
from hpsearch.config import TrialConfig
from hpsearch.execution.checkpoint_store import TrialPayload
from hpsearch.execution.cross_validation import run_cross_validation
from hpsearch.execution.memory_kills import MemoryWatch
from hpsearch.execution.preemption import stop_requested
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.execution.retry_policy import (
    describe_fullest_disk,
    format_trial_error,
    is_out_of_memory,
    is_transient,
)
from hpsearch.execution.system_metrics import SystemMonitor
from hpsearch.execution.worker_messages import (
    DiskFull,
    Failed,
    Reported,
    Restarted,
    decode_config,
)
from hpsearch.search.objective import Objective
from hpsearch.search.resources import DEVICE_OF_KIND, ResourceAllocation
from hpsearch.training.loop import Report


def run_decoded(config: dict[str, Any], *, train: Callable[..., None], **given: Any) -> None:
    """Call a training function with the decoded configuration of its trial."""
    train(decode_config(config), **given)


def train_on_worker(
    config: dict[str, Any], *, payload: TrialPayload, objective: Objective, folds: int | None
) -> None:
    """Train one trial, from its checkpoint if it has one, and report messages to the driver.

    Tune ends the function at a report when the scheduler stops the trial, so the last message of a
    pruned trial has the status ``running``, and that of any other the status at its end.
    """
    try:
        with (
            payload.checkpoint_dir(config["id"]) as folder,
            stop_requested(_poll(config["id"], payload)) as leave,
            SystemMonitor() as system,
        ):
            hooks = CheckpointHooks(folder.path, folder.upload, leave, _report_restart)
            for report in _iter_reports(config, payload, hooks, folds):
                measured = replace(report, metrics={**report.metrics, **system.metrics()})
                tune.report(Reported.from_report(measured, objective).to_dict())
    except Exception as error:
        message = _failure_message(error, payload)
        if message is not None:
            tune.report(message.to_dict())
        raise


def _poll(trial: str, payload: TrialPayload) -> Callable[[], bool]:
    """Function that a thread calls every few seconds; returns whether to save and stop."""
    watch = MemoryWatch(partial(payload.record_memory, trial))

    def poll() -> bool:
        watch.update()
        return payload.is_shutting_down()

    return poll


def _report_restart(reason: str) -> None:
    tune.report(Restarted(reason).to_dict())


def _iter_reports(
    config: dict[str, Any], payload: TrialPayload, hooks: CheckpointHooks, folds: int | None
) -> Iterator[Report]:
    job = payload.environment()
    place = ResourceAllocation.model_validate(config["place"])
    torch.set_num_threads(place.threads)  # as Ray does, unless OMP_NUM_THREADS is set
    device = job.computing.device
    if device == "auto":
        device = DEVICE_OF_KIND[place.kind]
    job = replace(job, computing=job.computing.model_copy(update={"device": device}))
    trial = TrialConfig.model_validate(config["trial"])
    return (
        run_cross_validation(trial, job, hooks, k=folds)
        if folds
        else run_with_checkpoints(trial, job, hooks)
    )


def _failure_message(error: Exception, payload: TrialPayload) -> Failed | DiskFull | None:
    """Build the message about an error; None if another attempt may succeed."""
    if is_disk_full(error):
        root = Path(payload.job_fields["artifacts"].root)
        paths = (payload.checkpoints_dir, root, Path(tempfile.gettempdir()))
        return DiskFull(describe_fullest_disk(paths))
    if is_transient(error):
        return None
    return Failed(format_trial_error(error), out_of_memory=is_out_of_memory(error))
