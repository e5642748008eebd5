"""Schedules of batches and of losses: constant, by the budget, or by the loss."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from hpsearch.config import (
    CustomSampler,
    FixedLossSteps,
    FixedSteps,
    Loss,
    MinedTriplets,
    PKSampler,
    RandomTriplets,
    Sampler,
    Sampling,
    Stepped,
    SteppedLoss,
)
from hpsearch.training.collapse_detection import collapse_scale
from hpsearch.training.loop import stack_losses

StageChange = Literal["stay", "on", "back", "undo"]
"""Stage change: "on" advances, "back" falls back to the stage before, and "undo" also restores the
weights from the start of this stage."""


def current_sampler(sampling: Sampling, *, share: float, stage: int = 0) -> Sampler | CustomSampler:
    """Sampler of the next batch.

    Args:
        sampling: setting of the batches.
        share: spent share of the budget, in [0, 1).
        stage: current stage of a stepped schedule.
    """
    match sampling:
        case Stepped(stages=stages):
            return stages[stage]
        case FixedSteps(stages=stages, milestones=milestones):
            return stages[bisect_right(milestones, share)]
        case MinedTriplets(batch=batch):
            return RandomTriplets(batch=batch)
        case _:
            return sampling


def current_loss_stage(loss: Loss, *, share: float, stage: int = 0) -> int:
    """Number of the loss of the next batch among ``loss_stages``; arguments as above."""
    match loss:
        case SteppedLoss():
            return stage
        case FixedLossSteps():
            return bisect_right(loss.starts, share)
        case _:
            return 0


@dataclass
class StageController:
    """Controller of stepped batches or of a stepped loss; its state is part of the checkpoint.

    It reads one mean loss per window, so that the loss is rarely copied from the device, and at
    points that depend on the settings only.

    Source: R3's stepped batch hard, which was adjusted manually.
    """

    settings: Stepped | SteppedLoss
    collapse_values: Sequence[float]
    """Loss of a constant encoder in each stage."""
    stage: int = 0
    proven: bool = True
    """True once the stage had a window below the collapse value; always for the first stage."""
    failed_at: dict[int, int] = field(default_factory=dict)
    """Patches seen when a stage last failed, by stage."""
    losses: list[Tensor] = field(default_factory=list)
    """Losses of the current window, on the device and not summed, as in ``loop``."""
    patches: int = 0

    def record_loss(
        self,
        loss: Tensor,
        *,
        used: int,
        seen: int,
        next_loss: Callable[[PKSampler], float] | None = None,
    ) -> StageChange:
        """Record the detached loss of a step, and return the change of stage after it.

        Args:
            loss: of the step, on its device.
            used: patches in its batch.
            seen: patches seen, those of the step included.
            next_loss: loss of one batch of a stage, without training on it; called at most once a
                window, and only with ``advance_on="next_batch"``.
        """
        self.losses.append(loss)
        self.patches += used
        if self.patches < self.settings.window:
            return "stay"
        mean = float(stack_losses(self.losses).mean())
        self.losses, self.patches = [], 0
        return self.update(mean, seen=seen, next_loss=next_loss)

    def update(
        self,
        mean: float,
        *,
        seen: int,
        next_loss: Callable[[PKSampler], float] | None = None,
    ) -> StageChange:
        """Update the stage after a window with this mean loss, and return the change."""
        if self.stage > 0 and not mean <= self.collapse_values[self.stage]:  # also true for NaN
            move: StageChange = "back" if self.proven else "undo"
            self.failed_at[self.stage] = seen
            self.stage, self.proven = self.stage - 1, True
            return move
        self.proven = True
        if self._is_low(mean) and self._may_advance(seen) and self._next_is_low(next_loss):
            self.stage, self.proven = self.stage + 1, False
            return "on"
        return "stay"

    def _is_low(self, loss: float) -> bool:
        value = self.collapse_values[self.stage]
        return loss < value - self.settings.below * collapse_scale(value)

    def _next_is_low(self, next_loss: Callable[[PKSampler], float] | None) -> bool:
        if isinstance(self.settings, SteppedLoss) or self.settings.advance_on == "this_batch":
            return True
        assert next_loss is not None, "the trainer measures the next batch"
        return self._is_low(next_loss(self.settings.stages[self.stage + 1]))

    def _may_advance(self, seen: int) -> bool:
        following = self.stage + 1
        if following == len(self.settings.stages):
            return False
        failed, retry = self.failed_at.get(following), self.settings.retry_after
        return failed is None or (retry is not None and seen - failed >= retry)

    def state(self) -> dict[str, Any]:
        """State for a checkpoint, without the settings."""
        names = ("stage", "proven", "patches")
        return {
            **{name: getattr(self, name) for name in names},
            "losses": [float(loss) for loss in self.losses],
            "failed_at": {**self.failed_at},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        for name in ("stage", "proven", "patches", "failed_at"):
            setattr(self, name, state[name])
        if self.stage not in range(len(self.settings.stages)):
            raise ValueError(f"there is no stage {self.stage!r}")
        self.losses = [torch.tensor(loss) for loss in state["losses"]]
