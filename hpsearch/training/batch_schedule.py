"""Which batches come next: constant, by the budget, or as the loss allows."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from hpsearch.config import FixedSteps, MinedTriplets, RandomTriplets, Sampler, Sampling, Stepped
from hpsearch.training.loop import stack_losses

StageChange = Literal["stay", "on", "back", "undo"]
"""Undo: back to the stage before, and to the weights with which this stage began."""


def current_sampler(sampling: Sampling, *, share: float, stage: int = 0) -> Sampler:
    """What the next batch is drawn with.

    Args:
        sampling: the setting.
        share: share of the budget that is spent, in [0, 1).
        stage: where a stepped schedule stands.
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


@dataclass
class BatchScheduleController:
    """Where a stepped schedule stands; all of it is part of the checkpoint.

    It reads one mean loss a window, so that the loss leaves the device seldom, and at patches
    that depend on the settings alone.

    Source: R3's stepped batch hard, in which a person did this by hand.
    """

    settings: Stepped
    collapse_value: float
    """The loss of a constant encoder."""
    stage: int = 0
    proven: bool = True
    """Whether the stage has had a window below the collapse value; the first needs none."""
    failed_at: dict[int, int] = field(default_factory=dict)
    """Patches seen when a stage last lifted the loss too far."""
    losses: list[Tensor] = field(default_factory=list)
    """Of the window so far; on the device, and not added up, as in ``loop``."""
    patches: int = 0

    def record_loss(self, loss: Tensor, *, used: int, seen: int) -> StageChange:
        """Take note of a step's loss, detached; ``seen`` counts its ``used`` patches too."""
        self.losses.append(loss)
        self.patches += used
        if self.patches < self.settings.window:
            return "stay"
        mean = float(stack_losses(self.losses).mean())
        self.losses, self.patches = [], 0
        return self.update(mean, seen=seen)

    def update(self, mean: float, *, seen: int) -> StageChange:
        """Where to go after a window with this mean loss."""
        if self.stage > 0 and not mean <= self.collapse_value:  # NaN is too high as well
            move: StageChange = "back" if self.proven else "undo"
            self.failed_at[self.stage] = seen
            self.stage, self.proven = self.stage - 1, True
            return move
        self.proven = True
        if mean < (1 - self.settings.below) * self.collapse_value and self._may_advance(seen):
            self.stage, self.proven = self.stage + 1, False
            return "on"
        return "stay"

    def _may_advance(self, seen: int) -> bool:
        following = self.stage + 1
        if following == len(self.settings.stages):
            return False
        failed, retry = self.failed_at.get(following), self.settings.retry_after
        return failed is None or (retry is not None and seen - failed >= retry)

    def state(self) -> dict[str, Any]:
        """Everything but the settings."""
        names = ("stage", "proven", "patches")
        return {
            **{name: getattr(self, name) for name in names},
            "losses": [float(loss) for loss in self.losses],
            "failed_at": {**self.failed_at},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        for name in ("stage", "proven", "patches", "failed_at"):
            setattr(self, name, state[name])
        if self.stage not in range(len(self.settings.stages)):
            raise ValueError(f"there is no stage {self.stage!r}")
        self.losses = [torch.tensor(loss) for loss in state["losses"]]
