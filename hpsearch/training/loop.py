"""One loop for denoisers and descriptors: a generator of reports.

It knows nothing of Ray, MLflow or printing; the caller decides what a report means. Progress is
counted in patches seen, so that a report is the same compute whatever the batch size.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

Status = Literal["running", "completed", "collapsed", "diverged"]


@dataclass
class Progress:
    """How far a task has come; part of every checkpoint."""

    seen: int = 0
    """Patches that training steps have used."""
    step: int = 0
    """Optimiser steps taken; names the random streams of the next step."""


@dataclass(frozen=True)
class Report:
    """What a task has to say after a fixed number of patches; every number is finite."""

    seen: int
    metrics: dict[str, float] = field(default_factory=dict)
    status: Status = "running"
    reason: str = ""


class Verdict(NamedTuple):
    """Why a task should end now."""

    status: Status
    reason: str


class Task(Protocol):
    """What ``fit`` needs of a network, its data and its loss."""

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        """Train on one batch; the loss, detached and on the device, and the patches used.

        ``progress`` names the batch and is not changed.
        """
        ...

    def check(self, loss: float) -> Verdict | None:
        """Look at the network's latest output, given the mean loss since the last check."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Validation metrics by name."""
        ...

    def worst(self) -> dict[str, float]:
        """The metrics of a task that failed: finite, and worse than any that did not."""
        ...


def fit(
    task: Task,
    *,
    patches: int,
    report_every: int,
    checks: int = 16,
    progress: Progress | None = None,
) -> Iterator[Report]:
    """Train ``task`` until it has seen ``patches`` patches, or until it fails.

    Reports come at the first step at or past each multiple of ``report_every`` and at the end;
    between two reports the task is checked for failure ``checks`` times, and only then does the
    loss leave the device. The last report's status is never ``running``.

    Args:
        patches: the budget, in patches seen.
        report_every: patches between two reports.
        checks: how often the task is checked between two reports.
        progress: where to go on; updated in place.
    """
    progress = progress or Progress()
    window = _LossWindow()
    while progress.seen < patches:
        before = progress.seen
        loss, used = task.step(progress)
        progress.seen, progress.step = before + used, progress.step + 1
        window.add(loss)
        done = progress.seen >= patches
        due = done or _passed(before, progress.seen, report_every)
        if due or _passed(before, progress.seen, max(1, report_every // checks)):
            verdict = window.check(task)
            if verdict is not None:
                yield Report(progress.seen, task.worst(), *verdict)
                return
        if due:
            metrics = {"train/loss": window.drain(), **task.evaluate()}
            yield Report(progress.seen, metrics, "completed" if done else "running")


def _passed(before: int, now: int, every: int) -> bool:
    return now // every > before // every


class _LossWindow:
    """Mean loss since the last check and since the last report; losses stay on the device.

    They are kept and not added up: on XLA a sum would be part of the next step's program, and
    another one at the start of every window.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._checked: list[tuple[float, int]] = []

    def add(self, loss: Tensor) -> None:
        self._losses.append(loss)

    def check(self, task: Task) -> Verdict | None:
        total, count = float(torch.stack(self._losses).sum()), len(self._losses)
        self._losses = []
        if not math.isfinite(total):
            return Verdict("diverged", "the training loss is not finite")
        self._checked.append((total, count))
        return task.check(total / count)

    def drain(self) -> float:
        total, count = (sum(part) for part in zip(*self._checked, strict=True))
        self._checked = []
        return total / count
