"""Collapse: every patch gets the same descriptor.

Neither the loss nor mAP shows it alone: a run that learns can sit at the collapse value for a
while, and a constant encoder has retrieval mAP 1.0. The descriptors show it, but only together:
they lie in one direction or close to one point relative to their length, *and* another point's
patch is no farther than a patch of the same point. The effective rank is no help: it is scale-free
and stays high while everything shrinks to one point.

Whether points are told apart is asked without dropout: where descriptors lie close together, the
noise of dropout is larger than what separates them, although they may rank well. Unit descriptors
trained with a high rate can end a fiftieth of their length apart, with their loss at the collapse
value throughout, and be as good as others; that is no collapse.
"""

from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from hpsearch.collapse_thresholds import TRAINING
from hpsearch.shapes import Float, Int

COLLAPSE_LOSS_TOLERANCE = 0.02
"""Relative distance of the loss from its collapse value that counts as hugging it."""


class BatchDispersion(NamedTuple):
    """How far descriptors of a batch are apart; all three are free of scale."""

    relative: float
    """Root mean squared distance of two descriptors ÷ root mean squared norm; 0 = one point."""
    resultant: float
    """Length of the mean of the unit-normalised descriptors, in [0, 1]."""
    contrast: float
    """Root mean squared distance to other points' patches ÷ to the same point's; 1 = chance."""

    @property
    def is_degenerate(self) -> bool:
        """Whether descriptors lie close together for their length, or all in one direction."""
        return self.relative < TRAINING.min_spread or self.resultant > TRAINING.max_resultant


@torch.no_grad()
def batch_dispersion(
    descriptors: Float[Tensor, "n d"], labels: Int[Tensor, " n"]
) -> BatchDispersion:
    """Measure a batch in O(n·d), from group means; ``labels`` name the point of each patch.

    In float64, because the distances of nearly equal descriptors are differences of large sums.
    """
    x = descriptors.double()
    count = len(x)
    groups = torch.unique(labels, return_inverse=True)[1]
    sizes = torch.bincount(groups).double()
    sums = torch.zeros(len(sizes), x.shape[1], dtype=x.dtype, device=x.device)
    sums.index_add_(0, groups, x)
    x_centered = x - x.mean(0)
    # Σ over ordered pairs of |xi − xj|² = 2·n·Σ|xi − mean|², within the batch and within a group
    everything = 2 * count * x_centered.square().sum()
    means = sums / sizes[:, None]
    within = 2 * (sizes[groups] * (x - means[groups]).square().sum(1)).sum()
    same = (sizes * (sizes - 1)).sum()
    other = count * (count - 1) - same
    positive, negative = within / same.clamp_min(1), (everything - within) / other.clamp_min(1)
    norm = x.square().sum(1).mean()
    unit = x / x.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return BatchDispersion(
        relative=_root_ratio(everything / (count * (count - 1)), norm),
        resultant=float(unit.mean(0).norm()),
        contrast=_root_ratio(negative, positive),
    )


def _root_ratio(above: Tensor, below: Tensor) -> float:
    return float((above.clamp_min(0) / below).sqrt()) if float(below) > 0 else 1.0


@dataclass
class CollapseDetector:
    """Decides on the mean of several looks, because a look at one batch is noisy.

    Args:
        collapse_value: the loss of a constant encoder; a run well below it is safe.
        num_checks: looks in a row, each at descriptors close together, whose mean ratio ends a
            trial. Dips recover, so one is not enough.
        contrasts: of the latest such looks; part of the checkpoint.
    """

    collapse_value: float
    num_checks: int = 3
    contrasts: list[float] = field(default_factory=list)

    def update(self, dispersion: BatchDispersion, loss: float) -> bool:
        """Whether the trial has collapsed, given the latest batch and the recent mean loss."""
        hugging = abs(loss / self.collapse_value - 1) < COLLAPSE_LOSS_TOLERANCE
        vanished = dispersion.relative < TRAINING.vanishing_spread and hugging
        if not vanished and not (dispersion.is_degenerate and loss > 0.9 * self.collapse_value):
            self.contrasts = []
            return False
        self.contrasts = [*self.contrasts, 1.0 if vanished else dispersion.contrast][
            -self.num_checks :
        ]
        return (
            len(self.contrasts) == self.num_checks and fmean(self.contrasts) < TRAINING.min_contrast
        )
