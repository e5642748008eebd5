"""Training of one trial on one machine: configuration, networks, reports, checkpoints."""

import io
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.atomic_files import atomic_write, read_with_checksum, write_with_checksum
from hpsearch.config import DEFAULT_COMPUTE, Clean, ComputeConfig, Constant, TrialConfig
from hpsearch.config.custom_import import add_sources
from hpsearch.config.custom_source import SourceTree
from hpsearch.data.patch_store import Patches, PatchStore
from hpsearch.data.splits import TrialSplit
from hpsearch.errors import UserError
from hpsearch.models import Pipeline, denoise, describe
from hpsearch.models.ensemble import compressed
from hpsearch.rng import rng_for
from hpsearch.schema import refuse_newer, stamped
from hpsearch.shapes import UInt8
from hpsearch.training.artifact_cache import ArtifactCache, CacheStats
from hpsearch.training.costs import measure_costs
from hpsearch.training.custom_parts import own_metrics
from hpsearch.training.denoiser_training import restoration_metrics
from hpsearch.training.descriptor_trainer import DescriptorTrainer
from hpsearch.training.devices import Compute, tune_glibc_malloc
from hpsearch.training.inputs import training_input
from hpsearch.training.loop import NotFiniteError, Progress, Report, Status, StopReason, fit
from hpsearch.training.validation import EvaluationSet, PatchPairSet, validation_set
from hpsearch.training.warm_start import warm_weights
from hpsearch.untrusted import reading

FAILURE_METRICS = {
    "val/mAP": 0.0,
    "val/verification": 0.0,
    "val/matching": 0.0,
    "val/retrieval": 0.0,
}
PAIR_FAILURE = {"val/fpr95": 1.0}


@dataclass(eq=False)
class DescriptorTask:
    """Training task of a descriptor with its validation."""

    trainer: DescriptorTrainer
    validation: EvaluationSet | PatchPairSet
    denoiser: nn.Module | None
    """Denoiser in front of the descriptor, if any."""

    @cached_property
    def seen_by_descriptor(self) -> UInt8[np.ndarray, "rows 32 32"]:
        """Validation patches as input of the descriptor."""
        raw = self.validation.pixels(noisy=self.config.evaluate_on == "noisy")
        return raw if self.denoiser is None else denoise(self.denoiser, raw, device=self.device)

    @cached_property
    def constant_metrics(self) -> dict[str, float]:
        """Metrics that are constant during training: restoration quality of the input."""
        if isinstance(self.validation, PatchPairSet):
            return {}  # they are by level, which these patches do not have
        return restoration_metrics(self.seen_by_descriptor, self.validation.pixels(noisy=False))

    @property
    def config(self) -> TrialConfig:
        """Configuration of the trial."""
        return self.trainer.config

    @property
    def network(self) -> nn.Module:
        """Descriptor network that is scored and registered."""
        return self.trainer.scored_network

    @property
    def device(self) -> torch.device:
        """Device of the descriptor."""
        return self.trainer.compute.device

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        """Train the descriptor on one batch; returns loss and patches used."""
        return self.trainer.step(progress)

    def check(self, loss: float) -> StopReason | None:
        """Reason to stop if the descriptor has collapsed, else None."""
        return self.trainer.check(loss)

    def evaluate(self) -> dict[str, float]:
        """Validation mAP by task and noise level, and metrics of training.

        Raises:
            NotFiniteError: if weights or descriptors are not finite.
        """
        training_metrics = self.trainer.evaluate()
        pipeline = Pipeline(denoiser=None, descriptor=self.network)
        descriptors = describe(pipeline, self.seen_by_descriptor, device=self.device)
        if not np.isfinite(descriptors).all():
            raise NotFiniteError("the descriptors of the validation patches are not finite")
        scores = self.validation.score(descriptors)
        return {
            **{f"val/{name}": value for name, value in scores.flat().items()},
            "val/collapsed": float(scores.collapsed),
            **self.constant_metrics,
            **own_metrics(self.config.metrics, self.validation, descriptors),
            **training_metrics,
            **self._learning_rate(),
        }

    def failure_metrics(self) -> dict[str, float]:
        """Scores of a collapsed or diverged descriptor."""
        return PAIR_FAILURE if isinstance(self.validation, PatchPairSet) else FAILURE_METRICS

    def state(self) -> dict[str, Any]:
        """State for a checkpoint: everything the next step depends on, except the progress."""
        return self.trainer.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.trainer.restore(state)

    def _learning_rate(self) -> dict[str, float]:
        """Learning rate of the latest step, if it changes during training."""
        rate = float(self.trainer.optimizer.param_groups[0]["lr"])
        return {} if self.config.schedule == Constant() else {"train/lr": rate}


CHECKPOINT_FILE, PREVIOUS_CHECKPOINT_FILE = "trial.pt", "trial.previous.pt"


@dataclass(frozen=True, kw_only=True)
class TrialEnvironment:
    """Environment that all trials of a search share; small, pickled by path."""

    store: PatchStore
    split: TrialSplit
    artifacts: ArtifactCache
    report_every: int
    validation_points: int
    sequences: tuple[str, ...] = ()
    """Training sequences; None means all of the split."""
    computing: ComputeConfig = DEFAULT_COMPUTE
    sources: tuple[SourceTree, ...] = ()
    """Sources of the user's own objects."""
    validation_on: Patches | None = None
    """Validation patches of another store; None for those of ``store``."""
    costs: frozenset[str] = frozenset()
    """Metrics of what a descriptor costs in use that are measured."""

    def validation_patches(self) -> Patches:
        """Patches to validate on; an error of the user if there are none."""
        if self.validation_on is not None:
            return self.validation_on
        return self.store.part(self.split, "validation")

    def training_patches(self) -> Patches:
        """Training patches; never of a test or validation sequence.

        Raises:
            UserError: if a chosen sequence is a test or validation sequence, or is missing.
        """
        if not self.sequences:
            return self.store.part(self.split, "train")
        for name in self.sequences:
            if name in self.split.validation:
                raise UserError(
                    f"{name!r} is a validation sequence of split {self.split.name!r} and cannot "
                    "be used for training; remove it"
                )
        return self.store.select(self.sequences, self.split)


@dataclass(eq=False)
class TrainingRun:
    """Training of one trial: descriptor, optional denoiser, progress and cache."""

    env: TrialEnvironment
    task: DescriptorTask
    denoiser: nn.Module | None
    progress: Progress
    cache_stats: CacheStats
    """Cache of artifacts that are shared with other trials."""

    def reports(self, *, on_step: Callable[[], None] | None = None) -> Iterator[Report]:
        """Train to the end of the budget, or until the trial fails.

        Args:
            on_step: callback after each step without a report; the trial can be saved there.
        """
        return fit(
            self.task,
            patches=self.task.config.patches,
            report_every=self.env.report_every,
            progress=self.progress,
            on_step=on_step,
        )

    def save(self, folder: Path, report: Report | None = None) -> None:
        """Write a checkpoint, from which training resumes bit-identically on the same machine.

        The one before is kept too, in case this one is damaged.

        Args:
            folder: folder of the latest checkpoint, created if missing.
            report: latest report, which is repeated on resume if it was not received.

        Raises:
            OSError: if it cannot be written; the checkpoint before is then unchanged.
        """
        folder.mkdir(parents=True, exist_ok=True)
        report_state = None if report is None else vars(report)
        task, progress = to_cpu(self.task.state()), to_cpu(vars(self.progress))
        content = io.BytesIO()  # a full disk is an OSError here, but not in torch
        torch.save(stamped({"progress": progress, "task": task, "report": report_state}), content)
        keep_previous_checkpoint(folder)
        write_with_checksum(folder / CHECKPOINT_FILE, content.getvalue())

    def load(self, folder: Path) -> Report | None:
        """Resume from a checkpoint; returns the report that was saved with it.

        Raises:
            UserError: if the checkpoint is missing, damaged (the trial is then unusable), or was
                written by a newer hpsearch.
            OSError: if the checkpoint cannot be read.
        """
        content = read_with_checksum(folder / CHECKPOINT_FILE)
        if content is None:
            raise UserError(
                f"the checkpoint in {folder} is damaged; restart the trial from scratch"
            )
        path = folder / CHECKPOINT_FILE
        with reading(
            path, "checkpoint of this trial", "remove it to restart the trial from scratch"
        ):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            refuse_newer(state, f"the checkpoint in {folder}")
            progress, report = Progress(**state["progress"]), _report(state["report"])
            self.task.restore(state["task"])
            progress.check()
            vars(self.progress).update(vars(progress))
        return report

    def measure_costs(self) -> dict[str, float]:
        """Costs of describing a patch that the environment asks for, by metric."""
        plain = Pipeline(denoiser=self.denoiser, descriptor=self.task.network)
        return measure_costs(plain, self.task.config, self.env.costs, self.task.device)

    def pipeline(self) -> Pipeline:
        """Pipeline from patches to descriptors, with the compression of the settings if any."""
        found = Pipeline(denoiser=self.denoiser, descriptor=self.task.network).eval()
        settings = self.task.config.compression
        if settings is None:
            return found
        train, noisy = self.env.training_patches(), not isinstance(self.task.config.input, Clean)
        total = train.num_rows
        rng = rng_for(self.task.config.seed, "compression", 0)
        rows = rng.choice(total, min(total, settings.patches), replace=False)
        return compressed(
            found,
            train.gather(np.sort(rows), noisy=noisy),
            descriptor_dim=settings.descriptor_dim,
            device=self.task.device,
        )


def keep_previous_checkpoint(folder: Path) -> None:
    """Give the checkpoint of a folder a second name, under which it outlives the next one.

    A damaged checkpoint is not kept, so that it does not replace a whole one. No checkpoint is
    changed in place, so no byte is copied where the disk can link.

    Raises:
        OSError: if it cannot be read, or its copy cannot be written.
    """
    latest = folder / CHECKPOINT_FILE
    if read_with_checksum(latest) is None:
        return
    with atomic_write(folder / PREVIOUS_CHECKPOINT_FILE) as draft:
        try:
            draft.hardlink_to(latest)
        except OSError:  # a disk that cannot
            shutil.copyfile(latest, draft)


def restore_previous_checkpoint(folder: Path) -> bool:
    """Put the checkpoint before the latest in its place; return False if there is no whole one."""
    previous = folder / PREVIOUS_CHECKPOINT_FILE
    if read_with_checksum(previous) is None:
        return False
    previous.replace(folder / CHECKPOINT_FILE)
    return True


def _report(report_state: dict[str, Any] | None) -> Report | None:
    """Report from its saved state.

    Raises:
        TypeError, ValueError: if the state is not a valid report.
    """
    if report_state is None:
        return None
    report = Report(**report_state)
    if report.status not in get_args(Status) or not isinstance(report.reason, str):
        raise ValueError("its report has no status")
    if not all(isinstance(name, str) and math.isfinite(v) for name, v in report.metrics.items()):
        raise ValueError("its report contains values that are not numbers")
    if type(report.seen) is not int:
        raise TypeError("its report has no count of patches")
    return report


def to_cpu(state: Any) -> Any:
    """Copy all tensors in nested dictionaries and lists to the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: to_cpu(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(to_cpu(value) for value in state)
    return state


def build_trial(config: TrialConfig, env: TrialEnvironment) -> TrainingRun:
    """Build the networks of a trial and load its patches.

    A shared denoiser and the weights of a warm start are read from the cache, or trained.

    Raises:
        UserError: if the device or compiler of ``env`` is not available.
        DependencyFailedError: if the training of a shared denoiser or warm start fails.
    """
    add_sources(env.sources)
    compute = Compute.resolve(env.computing)
    if compute.device.type == "cpu":
        tune_glibc_malloc()
    train = env.training_patches()
    validation = validation_set(env.validation_patches(), points=env.validation_points)
    artifacts = env.artifacts.with_fresh_stats()
    denoiser, input_fn = training_input(config.input, train, artifacts, compute.device)
    trainer = DescriptorTrainer(config, train.sequence_of, input_fn, compute, train.first_rows)
    weights = warm_weights(config, train, input_fn, artifacts, compute)
    if weights is not None:
        trainer.start_from(weights)
    task = DescriptorTask(trainer, validation, denoiser)
    return TrainingRun(env, task, denoiser, Progress(), artifacts.stats)
