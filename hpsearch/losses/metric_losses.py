"""Metric losses over triplets, pairs and P×K batches."""

from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hpsearch.config import BatchMiner, Distance, Margin
from hpsearch.losses.distances import margin_loss, paired_distance, pairwise_distance
from hpsearch.losses.miners import (
    all_pair_indices,
    batch_hard_indices,
    mine_triplets,
    percentile_negatives,
    positive_mask,
)
from hpsearch.shapes import Float

MAX_TRIPLETS_PER_CHUNK = 2**22
"""Maximum number of triplets in memory in batch all, 16 MiB in float32."""


def triplet_loss(
    descriptors: Float[Tensor, "3 n d"], *, distance: Distance, margin: Margin
) -> Float[Tensor, ""]:
    """Triplet loss, the mean over triplets of m(d(a,p) − d(a,n)).

    ``descriptors`` (3, n, d) are anchors, positives, negatives, row by row.

    Source: MatchLab-Imperial/keras_triplet_descriptor, with ``mean_squared`` and α = 1.
    """
    anchor, positive, negative = descriptors
    violation = paired_distance(anchor, positive, distance) - paired_distance(
        anchor, negative, distance
    )
    return margin_loss(violation, margin).mean()


def batch_hard_loss(
    descriptors: Float[Tensor, "1 n d"],
    *,
    views: int,
    distance: Distance,
    margin: Margin,
) -> Float[Tensor, ""]:
    """Batch-hard loss: mean over anchors of m(farthest positive − nearest negative).

    Args:
        descriptors: group-major, n = S · K with S and K at least 2.
        views: K, patches of each point.
        distance: distance of mining and loss.
        margin: margin function m of the violation.

    Source: Hermans et al. 2017, arXiv:1703.07737, eq. 5, as a mean.
    """
    x = descriptors[0]
    # Distances are monotonic in the squared one, so it mines the same triplets without a root.
    distances = pairwise_distance(x.detach(), x.detach(), "squared")
    mined = batch_hard_indices(distances, positive_mask(len(x), views=views, device=x.device))
    violation = paired_distance(x, x[mined.positive], distance) - paired_distance(
        x, x[mined.negative], distance
    )
    return margin_loss(violation, margin).mean()


def batch_triplet_loss(
    descriptors: Float[Tensor, "1 n d"],
    *,
    views: int,
    miner: BatchMiner,
    distance: Distance,
    margin: Margin,
) -> Float[Tensor, ""]:
    """Triplet loss of a P×K batch: mean over mined triplets of m(d(a,p) − d(a,n)).

    Args:
        descriptors: group-major, n = S · K with S and K at least 2.
        views: K, patches of each point.
        miner: rule by which triplets are chosen, by Euclidean distances.
        distance: distance in the loss.
        margin: margin function m of the violation.
    """
    x = descriptors[0]
    distances = pairwise_distance(x.detach(), x.detach(), "euclidean")
    mined = mine_triplets(distances, miner, views=views, descriptor_dim=x.shape[1])
    anchor = x.repeat_interleave(mined.positive.shape[1], dim=0)
    near = paired_distance(anchor, x[mined.positive.flatten()], distance)
    far = paired_distance(anchor, x[mined.negative.flatten()], distance)
    return margin_loss(near - far, margin).mean()


def batch_all_loss(
    descriptors: Float[Tensor, "1 n d"],
    *,
    views: int,
    distance: Distance,
    margin: Margin,
    nonzero: bool,
) -> Float[Tensor, ""]:
    """Batch-all loss: mean over all S(S−1)K²(K−1) valid triplets, or over those with a loss.

    Memory is bounded: triplets are formed for a few anchors at a time, and once more for the
    gradient.

    Args:
        descriptors: group-major, n = S · K with S and K at least 2.
        views: K, patches of each point.
        distance: distance between descriptors.
        margin: margin function m of the violation.
        nonzero: divide by the number of triplets with nonzero loss; 0 if there are none.

    Source: Hermans et al. 2017, arXiv:1703.07737, eq. 6 and section 3.
    """
    x = descriptors[0]
    n = len(x)
    distances = pairwise_distance(x, x, distance)
    columns = all_pair_indices(n, views=views, device=x.device)
    near, far = distances.gather(1, columns.positive), distances.gather(1, columns.negative)
    rows = max(1, MAX_TRIPLETS_PER_CHUNK // ((views - 1) * (n - views)))
    total, num_nonzero = x.new_zeros(()), x.new_zeros(())
    for a, b in zip(near.split(rows), far.split(rows), strict=True):
        part, count = checkpoint(
            _sum_violations, a, b, margin, use_reentrant=False, preserve_rng_state=False
        )
        total, num_nonzero = total + part, num_nonzero + count
    return total / (num_nonzero.clamp_min(1) if nonzero else n * (views - 1) * (n - views))


def _sum_violations(
    near: Float[Tensor, "a p"], far: Float[Tensor, "a m"], margin: Margin
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Sum of the losses of all triplets of some anchors, and the number of nonzero ones."""
    loss_values = margin_loss(near[:, :, None] - far[:, None, :], margin)
    return loss_values.sum(), (loss_values.detach() > 0).sum().to(loss_values.dtype)


def in_batch_triplet_loss(
    descriptors: Float[Tensor, "2 n d"],
    *,
    quantile: float,
    combine: Literal["mean", "min"],
    margin: Margin,
) -> Float[Tensor, ""]:
    """In-batch triplet loss: mean over pairs i of m(d_ii − c(row i at q, column i at q)).

    d is Euclidean, on unit descriptors the reports' √(2(1 − y·y′)). With ``quantile`` = 0 and the
    mean this is R1's equation 6, with the minimum HardNet's loss.

    Args:
        descriptors: anchors and positives, row by row, n at least 2.
        quantile: percentile of the n − 1 negatives, 0 = the nearest.
        combine: c, "mean" or "min".
        margin: margin function m of the violation.

    Source: R1, equation 6 and figure 3; Mishchuk et al., NeurIPS 2017.
    """
    anchor, positive = descriptors
    # Distances are monotonic in the squared one, so it mines the same negatives without a root.
    mined = percentile_negatives(
        pairwise_distance(anchor.detach(), positive.detach(), "squared"), quantile=quantile
    )
    row = paired_distance(anchor, positive[mined.positive], "euclidean")
    column = paired_distance(anchor[mined.anchor], positive, "euclidean")
    negative = torch.minimum(row, column) if combine == "min" else (row + column) / 2
    return margin_loss(paired_distance(anchor, positive, "euclidean") - negative, margin).mean()


def contrastive_pair_loss(
    descriptors: Float[Tensor, "2 n d"], *, margin: float, negative_share: float
) -> Float[Tensor, ""]:
    """Contrastive loss of n positive pairs (i, i) and n(n − 1) negative pairs (i, j), n ≥ 2."""
    anchor, positive = descriptors
    distances = pairwise_distance(anchor, positive, "euclidean")
    others = ~torch.eye(len(anchor), dtype=torch.bool, device=anchor.device)
    # The diagonal has loss 0: a mask keeps the shape fixed, an index list would not.
    apart = torch.relu(margin - distances).square() * others
    negative = apart.sum() / (len(anchor) * (len(anchor) - 1))
    return _weighted_mean(
        paired_distance(anchor, positive, "squared").mean(), negative, negative_share
    )


def contrastive_triplet_loss(
    descriptors: Float[Tensor, "3 n d"], *, margin: float, negative_share: float
) -> Float[Tensor, ""]:
    """Contrastive loss of pairs (anchor, positive) and pairs (anchor, negative)."""
    anchor, positive, negative = descriptors
    apart = torch.relu(margin - paired_distance(anchor, negative, "euclidean")).square()
    return _weighted_mean(
        paired_distance(anchor, positive, "squared").mean(), apart.mean(), negative_share
    )


def _weighted_mean(
    positive: Float[Tensor, ""], negative: Float[Tensor, ""], negative_share: float
) -> Float[Tensor, ""]:
    """Weighted mean of ½d² and ½[Δ − d]₊²; equal weights are the mean over balanced pairs.

    Source: Chopra et al., CVPR 2005.
    """
    return ((1 - negative_share) * positive + negative_share * negative) / 2
