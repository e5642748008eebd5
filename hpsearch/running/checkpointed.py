"""A trial that can be killed at any moment: each report comes after its checkpoint."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.search.resources import MEMORY_SHARE
from hpsearch.training.loop import Report
from hpsearch.training.trial import CHECKPOINT, Job, Trial, prepare_trial

SECONDS = "train/seconds"
"""Metric: seconds of training and validation, over all sessions."""
CONTEXT = 0.6 * 2**30
"""Bytes that CUDA itself takes of a GPU for a process, beside the tensors."""


def checkpointed(config: TrialConfig, job: Job, folder: Path) -> Iterator[Report]:
    """Reports of a trial that goes on from its checkpoint in ``folder``, if it has one.

    Checkpoints are ours and not Tune's: after the driver died, Tune knows what its last snapshot
    knew, and by then it has deleted the checkpoint that the snapshot names. Ours is always the
    latest, and holds the last report, which is told again in case nobody heard it.
    """
    trial = prepare_trial(config, job)
    said = _go_on(trial, folder)
    before = 0.0
    if said is not None:
        before = said.metrics.get(SECONDS, 0.0)
        yield said
    _count_memory_anew(trial.task.device)
    began = time.monotonic()
    for report in trial.reports():
        cost = {SECONDS: before + time.monotonic() - began, **_memory(trial.task.device)}
        report = replace(report, metrics={**report.metrics, **cost})
        trial.save(folder, report)
        yield report


def _go_on(trial: Trial, folder: Path) -> Report | None:
    try:
        return trial.load(folder) if (folder / CHECKPOINT).exists() else None
    except UserError:
        return None  # a damaged checkpoint: begin again


def _count_memory_anew(device: torch.device) -> None:
    """A process runs trial after trial; what the last one held is not this one's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _memory(device: torch.device) -> dict[str, float]:
    """What this process holds of its GPU; other trials share what is left."""
    if device.type != "cuda":
        return {}
    held = torch.cuda.max_memory_reserved(device) + CONTEXT
    return {MEMORY_SHARE: held / torch.cuda.get_device_properties(device).total_memory}
