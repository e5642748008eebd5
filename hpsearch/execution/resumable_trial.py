"""A trial that can be killed at any moment: each report comes after its checkpoint."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.execution.shutdown import Preempted
from hpsearch.schema import NewerSchema
from hpsearch.search.resources import MEMORY_SHARE
from hpsearch.training.artifact_cache import MADE, SPARED, NotTrained
from hpsearch.training.loop import Report
from hpsearch.training.trial import CHECKPOINT, WORST, Job, Trial, prepare_trial

SECONDS = "train/seconds"
"""Metric: seconds of training and validation, over all sessions."""
CONTEXT = 0.6 * 2**30
"""Bytes that CUDA itself takes of a GPU for a process, beside the tensors."""


@dataclass(frozen=True)
class Post:
    """Where a trial is trained: a folder for its checkpoints, and who is told of them."""

    folder: Path
    saved: Callable[[], None] = lambda: None
    """Called when something new lies in the folder, and before anything is said of it."""
    leave: Callable[[], bool] = lambda: False
    """Asked after each training step whether to save at once and go."""
    anew: Callable[[str], None] = lambda why: None
    """Told why training begins again, if what lies in the folder cannot be gone on from."""

    def within(self, name: str) -> "Post":
        """A folder inside this one."""
        return replace(self, folder=self.folder / name)


def checkpointed(config: TrialConfig, job: Job, post: Post) -> Iterator[Report]:
    """Reports of a trial that goes on from its latest checkpoint, if it has one.

    Checkpoints are ours and not Tune's: after the driver died, Tune knows what its last snapshot
    knew, and by then it has deleted the checkpoint that the snapshot names. Ours is always the
    latest, and holds the last report, which is told again in case nobody heard it.

    A trial whose denoiser or first weights come to nothing has diverged before its first patch.

    Raises:
        Preempted: once it has been saved, when it was told to leave.
    """
    try:
        trial = prepare_trial(config, job)
    except NotTrained as error:
        yield Report(0, {**WORST, SECONDS: 0.0}, "diverged", str(error))
        return
    try:
        said = _go_on(trial, post)
    except NewerSchema:
        raise  # it is whole, and training again would replace it
    except UserError:
        post.anew("its checkpoint was damaged")
        trial, said = prepare_trial(config, job), None  # half of it may have been taken over
    before, shared = 0.0, trial.costs.metrics()
    if said is not None:
        before = said.metrics.get(SECONDS, 0.0)
        shared = {name: said.metrics[name] for name in (MADE, SPARED) if name in said.metrics}
        yield said
    _count_memory_anew(trial.task.device)
    began = time.monotonic()

    def save() -> None:
        trial.save(post.folder, said)
        post.saved()

    def between() -> None:
        if post.leave():
            save()
            raise Preempted("saved, and left")

    for report in trial.reports(between=between):
        cost = {SECONDS: before + time.monotonic() - began, **_memory(trial.task.device)}
        said = replace(report, metrics={**report.metrics, **cost, **shared})
        save()
        yield said


def _go_on(trial: Trial, post: Post) -> Report | None:
    if not (post.folder / CHECKPOINT).exists():
        return None
    return trial.load(post.folder)


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
