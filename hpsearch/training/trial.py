"""One trial, from its configuration to reports, on one machine, with no Ray."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpsearch.config import AS_FOUND, Computing, TrialConfig
from hpsearch.data.splits import Split
from hpsearch.data.store import Patches, PatchStore
from hpsearch.errors import UserError
from hpsearch.evaluation import VALIDATION
from hpsearch.models import Pipeline, denoise
from hpsearch.training.artifacts import Artifacts, Costs
from hpsearch.training.denoising import restoration_metrics
from hpsearch.training.devices import Compute, keep_freed_memory
from hpsearch.training.inputs import training_input
from hpsearch.training.learner import Learner
from hpsearch.training.loop import Progress, Report, fit
from hpsearch.training.sealed import read_sealed, write_sealed
from hpsearch.training.tasks import DescriptorTask
from hpsearch.training.validation import scored
from hpsearch.training.warm_start import warm_weights

CHECKPOINT = "trial.pt"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all trials of a search have in common; small, and pickles by path."""

    store: PatchStore
    split: Split
    artifacts: Artifacts
    report_every: int
    validation_points: int
    sequences: tuple[str, ...] = ()
    """Training sequences; none means all of the split's."""
    computing: Computing = AS_FOUND

    def training_patches(self) -> Patches:
        """Patches to train on; never of a test or validation sequence.

        Raises:
            UserError: if a chosen sequence is a test or validation sequence, or is not there.
        """
        if not self.sequences:
            return self.store.part(self.split, "train")
        for name in self.sequences:
            if name in self.split.validation:
                raise UserError(
                    f"{name!r} is a validation sequence of split {self.split.name!r} and cannot "
                    "be trained on; leave it out"
                )
        return self.store.only(self.sequences, self.split)


@dataclass(eq=False)
class Trial:
    """A descriptor in training, with the denoiser in front of it, if there is one."""

    job: Job
    task: DescriptorTask
    denoiser: nn.Module | None
    progress: Progress
    costs: Costs
    """Of what it shares with other trials."""

    def reports(self, *, between: Callable[[], None] | None = None) -> Iterator[Report]:
        """Train to the end of the budget, or until the trial fails.

        Args:
            between: called after each step that no report follows; the trial can be saved there.
        """
        return fit(
            self.task,
            patches=self.task.config.patches,
            report_every=self.job.report_every,
            progress=self.progress,
            between=between,
        )

    def save(self, folder: Path, report: Report | None = None) -> None:
        """Write a checkpoint that continues bit-identically on the same machine.

        Args:
            folder: made if need be; it holds one checkpoint, always the latest.
            report: what the trial has just said, so that it can say it again if nobody heard.

        Raises:
            OSError: if it cannot be written; the one before is then still there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        said = None if report is None else vars(report)
        task, progress = on_cpu(self.task.state()), on_cpu(vars(self.progress))
        content = io.BytesIO()  # a full disk is an OSError here, and nothing of the kind in torch
        torch.save({"progress": progress, "task": task, "report": said}, content)
        write_sealed(folder / CHECKPOINT, content.getvalue())

    def load(self, folder: Path) -> Report | None:
        """Go on from a checkpoint; the report that was saved with it.

        Raises:
            UserError: if the checkpoint is missing or damaged.
            OSError: if the disk does not give it.
        """
        content = read_sealed(folder / CHECKPOINT)
        if content is None:
            raise UserError(f"the checkpoint in {folder} is damaged; start the trial again")
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        vars(self.progress).update(state["progress"])
        self.task.restore(state["task"])
        return None if state["report"] is None else Report(**state["report"])

    def pipeline(self) -> Pipeline:
        """What is registered: noisy or clean patches in, descriptors out."""
        return Pipeline(denoiser=self.denoiser, descriptor=self.task.network).eval()


def on_cpu(state: Any) -> Any:
    """Copies of all tensors in nested dictionaries and lists, so that any device can go on."""
    if isinstance(state, torch.Tensor):
        return state.detach().cpu()
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(on_cpu(value) for value in state)
    return state


def prepare_trial(config: TrialConfig, job: Job) -> Trial:
    """Build the networks and lay out the patches.

    A shared denoiser and the weights to begin with are found or trained here.

    Raises:
        UserError: if the job's device or compiler is not here.
        NotTrained: if what it shares with other trials collapses or diverges.
    """
    compute = Compute.here(job.computing)
    if compute.device.type == "cpu":
        keep_freed_memory()
    train = job.training_patches()
    validation = scored(
        job.store.part(job.split, "validation"), points=job.validation_points, sizes=VALIDATION
    )
    raw = validation.pixels(noisy=config.evaluate_on == "noisy")
    artifacts = job.artifacts.counted_anew()
    denoiser, feed = training_input(config.input, train, artifacts, compute.device)
    seen = raw if denoiser is None else denoise(denoiser, raw, device=compute.device)
    learner = Learner(config, train.sequence_of, feed, compute)
    weights = warm_weights(config, train, feed, artifacts, compute)
    if weights is not None:
        learner.network.load_state_dict(weights)
    task = DescriptorTask(
        learner=learner,
        validation=validation,
        seen_by_descriptor=seen,
        constant_metrics=restoration_metrics(seen, validation.pixels(noisy=False)),
    )
    return Trial(job, task, denoiser, Progress(), artifacts.costs)
