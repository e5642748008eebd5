"""Detection of collapse, in which every patch gets the same descriptor.

Neither the loss nor mAP is sufficient: the loss of a successful training can stay at the collapse
value for a while, and a constant encoder has retrieval mAP 1.0. The criterion is a combination: the
descriptors have one direction, or are close to one point relative to their length, *and* the patch
of another point is no farther than a patch of the same point. The effective rank is not useful: it
is scale-free and stays high while all descriptors shrink to one point.

The contrast between points is measured without dropout: if descriptors are close together, dropout
noise exceeds their differences, although they may rank well. Unit descriptors trained with a high
learning rate can end a fiftieth of their length apart, with their loss at the collapse value
throughout, and be as good as others; that is not a collapse.
"""

from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from hpsearch.collapse_thresholds import TRAINING
from hpsearch.shapes import Float, Int

COLLAPSE_LOSS_TOLERANCE = 0.02
"""Relative difference of the loss from its collapse value that counts as equal."""


def collapse_scale(collapse_value: float) -> float:
    """Scale of losses around a collapse value: itself, or 1 for losses without a margin.

    A dynamic margin has the collapse value 0, and losses in units of the distance.
    """
    return abs(collapse_value) or 1.0


class BatchDispersion(NamedTuple):
    """Dispersion of the descriptors of a batch; all three measures are scale-free."""

    relative: float
    """Root mean squared distance of two descriptors ÷ root mean squared norm; 0 = one point."""
    resultant: float
    """Length of the mean of the unit-normalized descriptors, in [0, 1]."""
    contrast: float
    """Root mean squared distance to other points' patches ÷ to the same point's; 1 = chance."""

    @property
    def is_degenerate(self) -> bool:
        """True if descriptors are close together relative to their length, or in one direction."""
        return self.relative < TRAINING.min_spread or self.resultant > TRAINING.max_resultant


@torch.no_grad()
def batch_dispersion(
    descriptors: Float[Tensor, "n d"], labels: Int[Tensor, " n"]
) -> BatchDispersion:
    """Dispersion of a batch in O(n·d), from group means; ``labels`` are points.

    Computed in float64, because distances of nearly equal descriptors are differences
    of large sums.
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
    """Collapse detector, which averages several checks because a single batch is noisy.

    Args:
        collapse_value: loss of a constant encoder; a run well below it is not collapsed.
        num_checks: number of consecutive checks with degenerate descriptors whose mean contrast
            decides. One is not enough, because dips recover.
        contrasts: contrasts of the latest such checks; part of the checkpoint.

    Example:
        >>> detector = CollapseDetector(collapse_value=1.0)
        >>> spread = BatchDispersion(relative=1.4, resultant=0.1, contrast=2.0)
        >>> detector.update(spread, loss=0.5)
        False
    """

    collapse_value: float
    num_checks: int = 3
    contrasts: list[float] = field(default_factory=list)

    def update(self, dispersion: BatchDispersion, loss: float) -> bool:
        """Record a check; True if the trial has collapsed.

        Args:
            dispersion: dispersion of the latest batch.
            loss: mean loss since the last check.
        """
        excess = (loss - self.collapse_value) / collapse_scale(self.collapse_value)
        at_collapse_value = abs(excess) < COLLAPSE_LOSS_TOLERANCE
        vanished = dispersion.relative < TRAINING.vanishing_spread and at_collapse_value
        if not vanished and not (dispersion.is_degenerate and excess > -0.1):
            self.contrasts = []
            return False
        self.contrasts = [*self.contrasts, 1.0 if vanished else dispersion.contrast][
            -self.num_checks :
        ]
        return (
            len(self.contrasts) == self.num_checks and fmean(self.contrasts) < TRAINING.min_contrast
        )
