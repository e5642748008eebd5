"""Training loop of denoisers and descriptors, as a generator of reports.

It is independent of Ray, MLflow and printing; the caller handles the reports. Progress is counted
in patches seen, so that a report means equal compute for any batch size.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Status = Literal["running", "completed", "collapsed", "diverged"]


@dataclass
class Progress:
    """Progress of a task; part of every checkpoint."""

    seen: int = 0
    """Number of patches used by training steps."""
    step: int = 0
    """Number of optimizer steps; selects the random streams of the next step."""
    losses: list[Tensor] = field(default_factory=list)
    """Losses of the steps since the last check, on the device and not summed: on XLA a sum would
    be part of the next step's program, which would differ at the start of every window."""
    checked: list[tuple[float, int]] = field(default_factory=list)
    """Sum and number of the losses of each check since the last report."""

    def check(self) -> None:
        """Check the types and ranges of counts and losses.

        Raises:
            TypeError, ValueError: if one is invalid.
        """
        if not all(type(count) is int and count >= 0 for count in (self.seen, self.step)):
            raise ValueError("its counts are invalid")
        if not all(isinstance(loss, Tensor) and loss.numel() == 1 for loss in self.losses):
            raise ValueError("its losses are invalid")
        self.checked = [(float(total), int(number)) for total, number in self.checked]


@dataclass(frozen=True)
class Report:
    """Report of a task after a fixed number of patches; all metrics are finite."""

    seen: int
    metrics: dict[str, float] = field(default_factory=dict)
    status: Status = "running"
    reason: str = ""


class StopReason(NamedTuple):
    """Status and explanation of a task that has to stop."""

    status: Status
    reason: str


class NotFiniteError(ArithmeticError):
    """Weights, descriptors or scores that are not finite: the task has diverged."""


def require_finite_weights(network: nn.Module) -> None:
    """Check the weights and the statistics of a network, with one copy from its device.

    A loss is computed before the weights are changed, so that of the last step may be finite
    although the step has ruined them.

    Raises:
        NotFiniteError: if one is not finite.
    """
    if not torch.stack([values.isfinite().all() for values in network.state_dict().values()]).all():
        raise NotFiniteError("the weights are not finite")


class Task(Protocol):
    """Interface between ``fit`` and a network with its data and loss."""

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        """Train on one batch; returns the detached loss on the device and the patches used.

        ``progress`` selects the batch and is not modified.
        """
        ...

    def check(self, loss: float) -> StopReason | None:
        """Check the latest output for failure, given the mean loss since the last check."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Validation metrics by name.

        Raises:
            NotFiniteError: if weights, descriptors or scores are not finite.
        """
        ...

    def failure_metrics(self) -> dict[str, float]:
        """Metrics of a failed task: finite, and worse than those of any successful one."""
        ...


def fit(
    task: Task,
    *,
    patches: int,
    report_every: int,
    num_checks: int = 16,
    progress: Progress | None = None,
    on_step: Callable[[], None] | None = None,
) -> Iterator[Report]:
    """Train ``task`` until it has seen ``patches`` patches, or until it fails.

    Reports are yielded at the first step at or past each multiple of ``report_every`` and at the
    end; between two reports the task is checked for failure ``num_checks`` times, and only then is
    the loss copied from the device. The last report's status is never ``running``.

    Args:
        task: the task.
        patches: the budget, in patches seen.
        report_every: patches between two reports.
        num_checks: how often the task is checked between two reports.
        progress: progress to resume from; updated in place.
        on_step: callback after each step without a report; the task and its progress can be
            saved there.
    """
    progress = progress or Progress()
    while progress.seen < patches:
        before = progress.seen
        loss, used = task.step(progress)
        progress.seen, progress.step = before + used, progress.step + 1
        progress.losses.append(loss)
        done = progress.seen >= patches
        due = done or _crossed(before, progress.seen, report_every)
        if due or _crossed(before, progress.seen, max(1, report_every // num_checks)):
            stop_reason = _check_task(task, progress)
            if stop_reason is not None:
                yield Report(progress.seen, task.failure_metrics(), *stop_reason)
                return
        if due:
            report = _evaluate(task, progress, "completed" if done else "running")
            yield report
            if report.status == "diverged":
                return
        elif on_step is not None:
            on_step()


def _crossed(before: int, now: int, every: int) -> bool:
    return now // every > before // every


def stack_losses(losses: Sequence[Tensor]) -> Tensor:
    """Stack the losses of several steps; those from a checkpoint are moved to the device."""
    return torch.stack([loss.to(losses[-1].device) for loss in losses])


def _check_task(task: Task, progress: Progress) -> StopReason | None:
    total, count = float(stack_losses(progress.losses).sum()), len(progress.losses)
    progress.losses = []
    if not math.isfinite(total):
        return StopReason("diverged", "the training loss is not finite")
    progress.checked.append((total, count))
    return task.check(total / count)


def _evaluate(task: Task, progress: Progress, status: Status) -> Report:
    """Report of a validation; a task with anything that is not finite has diverged."""
    loss = _mean_loss(progress)
    try:
        metrics = {"train/loss": loss, **task.evaluate()}
        wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
        if wrong:
            raise NotFiniteError(f"{wrong[0]} is not finite")
    except NotFiniteError as error:
        return Report(progress.seen, task.failure_metrics(), "diverged", str(error))
    return Report(progress.seen, metrics, status)


def _mean_loss(progress: Progress) -> float:
    """Mean loss since the last report."""
    total, count = (sum(part) for part in zip(*progress.checked, strict=True))
    progress.checked = []
    return total / count
