"""Trials that can be killed at any moment: a checkpoint is written before each report."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.execution.shutdown import TrialInterrupted
from hpsearch.schema import NewerSchema
from hpsearch.search.resources import MEMORY_SHARE_METRIC
from hpsearch.training.artifact_cache import (
    COMPUTED_SECONDS_METRIC,
    SAVED_SECONDS_METRIC,
    DependencyFailedError,
)
from hpsearch.training.costs import COST_METRICS
from hpsearch.training.loop import Report
from hpsearch.training.trial import (
    CHECKPOINT_FILE,
    FAILURE_METRICS,
    TrainingRun,
    TrialEnvironment,
    build_trial,
    restore_previous_checkpoint,
)

SECONDS_METRIC = "train/seconds"
"""Metric: seconds of training and validation, over all sessions."""
CUDA_CONTEXT_BYTES = 0.6 * 2**30
"""Bytes that CUDA itself takes of a GPU for a process, in addition to the tensors."""


@dataclass(frozen=True)
class CheckpointHooks:
    """Folder for the checkpoints of a trial, and functions to call around them."""

    checkpoint_dir: Path
    on_checkpoint: Callable[[], None] = lambda: None
    """Called after each checkpoint, before its report."""
    should_stop: Callable[[], bool] = lambda: False
    """Called after each training step; returns whether to save at once and stop."""
    on_restart: Callable[[str], None] = lambda why: None
    """Called with the reason when training restarts from scratch, as the checkpoint is damaged."""

    def subdirectory(self, name: str) -> "CheckpointHooks":
        """Return the same hooks for a folder inside this one."""
        return replace(self, checkpoint_dir=self.checkpoint_dir / name)


def run_with_checkpoints(
    config: TrialConfig, env: TrialEnvironment, hooks: CheckpointHooks
) -> Iterator[Report]:
    """Yield the reports of a trial, resumed from its latest checkpoint if it has one.

    Checkpoints are ours and not Tune's: after the driver died, Tune knows what its last snapshot
    knew, and by then it has deleted the checkpoint that the snapshot names. Ours is always the
    latest, and holds the last report, which is repeated in case it was lost.

    A trial whose denoiser or first weights come to nothing has diverged before its first patch.

    Raises:
        TrialInterrupted: once it has been saved, when it was asked to stop.
    """
    try:
        trial = build_trial(config, env)
    except DependencyFailedError as error:
        yield Report(0, {**FAILURE_METRICS, SECONDS_METRIC: 0.0}, "diverged", str(error))
        return
    try:
        last_report = _restore(trial, hooks)
    except NewerSchema:
        raise  # it is whole, and training again would replace it
    except UserError:
        trial, last_report = _restore_previous(config, env, hooks)
    before = 0.0
    if last_report is not None and last_report.seen < config.patches:
        last_report = _without_completion(last_report)
    if last_report is not None:
        before = last_report.metrics.get(SECONDS_METRIC, 0.0)
        yield last_report
    shared = _constant_metrics(trial, last_report)
    _reset_peak_memory(trial.task.device)
    began = time.monotonic()

    def save() -> None:
        trial.save(hooks.checkpoint_dir, last_report)
        hooks.on_checkpoint()

    def between() -> None:
        if hooks.should_stop():
            save()
            raise TrialInterrupted("saved, and stopped")

    for report in trial.reports(on_step=between):
        cost = {
            SECONDS_METRIC: before + time.monotonic() - began,
            **_gpu_memory_share(trial.task.device),
        }
        last_report = replace(report, metrics={**report.metrics, **cost, **shared})
        save()
        yield last_report


def _without_completion(report: Report) -> Report:
    """Report of a trial that completed a smaller budget, as one of a trial that trains on."""
    return replace(report, status="running") if report.status == "completed" else report


def _constant_metrics(trial: TrainingRun, last_report: Report | None) -> dict[str, float]:
    """Metrics that all reports of a trial share: use of the cache, and costs of a patch."""
    if last_report is None:
        return trial.cache_stats.metrics() | trial.measure_costs()
    names = (COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC, *COST_METRICS)
    known = {n: last_report.metrics[n] for n in names if n in last_report.metrics}
    return known if trial.env.costs <= known.keys() else trial.measure_costs() | known


def _restore(trial: TrainingRun, hooks: CheckpointHooks) -> Report | None:
    if not (hooks.checkpoint_dir / CHECKPOINT_FILE).exists():
        return None
    return trial.load(hooks.checkpoint_dir)


def _restore_previous(
    config: TrialConfig, env: TrialEnvironment, hooks: CheckpointHooks
) -> tuple[TrainingRun, Report | None]:
    """Resume from the checkpoint before a damaged one; without it, restart from scratch."""
    if restore_previous_checkpoint(hooks.checkpoint_dir):
        trial = build_trial(config, env)  # half of the damaged one may have been taken over
        try:
            return trial, _restore(trial, hooks)
        except NewerSchema:
            raise
        except UserError:
            pass  # it has a digest that matches, and yet cannot be used
    hooks.on_restart("its checkpoint was damaged")
    return build_trial(config, env), None


def _reset_peak_memory(device: torch.device) -> None:
    """Reset the memory statistics of a process that runs one trial after another."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _gpu_memory_share(device: torch.device) -> dict[str, float]:
    """Measure the share of its GPU's memory that this process holds."""
    if device.type != "cuda":
        return {}
    held = torch.cuda.max_memory_reserved(device) + CUDA_CONTEXT_BYTES
    return {MEMORY_SHARE_METRIC: held / torch.cuda.get_device_properties(device).total_memory}
