"""Descriptor task that records its loss and statistics of its batches while it trains."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hpsearch.shapes import Float, Int
from hpsearch.training.descriptor_trainer import DescriptorTrainer
from hpsearch.training.loop import Progress
from hpsearch.training.trial import DescriptorTask

WINDOW = 4096
"""Patches seen over which the loss is averaged, as in the stepped schedule's default."""


@dataclass
class Trace:
    """Columns with a value per window; None if it is not a number.

    ``loss`` is the mean of the window, the other columns are of its last batch
    (``batch_statistics``).
    """

    columns: dict[str, list[float | None]] = field(
        default_factory=lambda: {
            name: []
            for name in ("seen", "loss", "stage", "ratio", "positive", "negative", "won", "norm")
        }
    )
    total: float = 0.0
    """Sum of the losses since the last window."""
    steps: int = 0
    patches: int = 0
    earlier_seconds: float = 0.0
    """CPU seconds before the latest resume."""
    began: float = field(default_factory=time.process_time)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this run, over all sessions."""
        return self.earlier_seconds + time.process_time() - self.began

    def add(self, loss: float, used: int, seen: int, trainer: DescriptorTrainer) -> None:
        """Record a step; ``seen`` includes its ``used`` patches."""
        self.total, self.steps, self.patches = (
            self.total + loss,
            self.steps + 1,
            self.patches + used,
        )
        if self.patches < WINDOW:
            return
        found = {
            "seen": float(seen),
            "loss": self.total / self.steps,
            "stage": float(trainer.stage_controller.stage) if trainer.stage_controller else 0.0,
            **batch_statistics(trainer),
        }
        for name, value in found.items():
            self.columns[name].append(float(f"{value:.5g}") if math.isfinite(value) else None)
        self.total, self.steps, self.patches = 0.0, 0, 0

    def state(self) -> dict[str, Any]:
        """State for a checkpoint of a traced run."""
        kept = {name: getattr(self, name) for name in ("total", "steps", "patches")}
        columns = {name: list(values) for name, values in self.columns.items()}
        return {**kept, "columns": columns, "earlier_seconds": self.cpu_seconds}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)
        self.began = time.process_time()


@dataclass(eq=False)
class TracedTask(DescriptorTask):
    """Descriptor task with a trace, which is part of its checkpoint; it trains as its base does."""

    trace: Trace = field(default_factory=Trace)
    output: list[dict[str, Any]] = field(default_factory=list)
    """All reports so far, as dictionaries."""

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        """Train on one batch, and record its loss."""
        loss, used = super().step(progress)
        self.trace.add(float(loss), used, progress.seen + used, self.trainer)
        return loss, used

    def evaluate(self) -> dict[str, float]:
        """As the base, with the ratio of the latest batch's negative to positive distances."""
        return {**super().evaluate(), "train/ratio": self.trainer.dispersion().contrast}

    def state(self) -> dict[str, Any]:
        """As the base, with the trace and the reports."""
        return {**super().state(), "trace": self.trace.state(), "reports": list(self.output)}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        super().restore(state)
        self.trace.restore(state["trace"])
        self.output[:] = state["reports"]


def batch_statistics(trainer: DescriptorTrainer) -> dict[str, float]:
    """Batch-hard statistics of the latest batch, for any loss.

    Returns:
        ``ratio``: root mean squared distance of negatives to that of positives; ``positive`` and
        ``negative``: mean distance of the farthest positive and of the nearest negative;
        ``won``: share of anchors whose farthest positive is nearer than any negative;
        ``norm``: mean length of a descriptor.
    """
    return {"ratio": trainer.dispersion().contrast, **hardest_statistics(*trainer.latest_batch())}


@torch.no_grad()
def hardest_statistics(
    descriptors: Float[Tensor, "n d"], labels: Int[Tensor, " n"]
) -> dict[str, float]:
    """Mean distances of farthest positives and nearest negatives, over patches that have both."""
    distances = torch.cdist(
        descriptors.float(), descriptors.float(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    same = labels[:, None] == labels[None, :]
    positives = same & ~torch.eye(len(labels), dtype=torch.bool)
    anchors = positives.any(1) & (~same).any(1)
    farthest = distances.masked_fill(~positives, -1.0).amax(1)[anchors]
    nearest = distances.masked_fill(same, torch.inf).amin(1)[anchors]
    return {
        "positive": float(farthest.mean()),
        "negative": float(nearest.mean()),
        "won": float((farthest < nearest).float().mean()),
        "norm": float(descriptors.float().norm(dim=1).mean()),
    }
