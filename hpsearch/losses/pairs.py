"""What pairs pay: anchor i and positive i of distinct points; all others are negatives."""

from typing import Literal

import torch
from torch import Tensor

from hpsearch.config import Margin
from hpsearch.losses.distances import paired, pairwise
from hpsearch.losses.margins import pay
from hpsearch.losses.miners import negatives_at
from hpsearch.shapes import Float


def pair_triplets(
    descriptors: Float[Tensor, "2 n d"],
    *,
    q: float,
    combine: Literal["mean", "min"],
    margin: Margin,
) -> Float[Tensor, ""]:
    """Mean over pairs i of m(d_ii − c(d of row i at q, d of column i at q)), d Euclidean.

    On unit descriptors d is the reports' √(2(1 − y·y′)). With ``q`` = 0 and the mean this is R1's
    equation 6, with the minimum HardNet's loss.

    Args:
        descriptors: anchors and positives, row by row, n at least 2.
        q: percentile of the n − 1 negatives, 0 = the nearest.
        combine: c, "mean" or "min".
        margin: how an excess is paid.

    Source: R1, equation 6 and figure 3; Mishchuk et al., NeurIPS 2017.
    """
    anchor, positive = descriptors
    # Every distance grows with the squared one, so it mines the same negatives without a root.
    mined = negatives_at(pairwise(anchor.detach(), positive.detach(), "squared"), q=q)
    row = paired(anchor, positive[mined.positive], "euclidean")
    column = paired(anchor[mined.anchor], positive, "euclidean")
    negative = torch.minimum(row, column) if combine == "min" else (row + column) / 2
    return pay(paired(anchor, positive, "euclidean") - negative, margin).mean()


def contrastive_pairs(
    descriptors: Float[Tensor, "2 n d"], *, radius: float, negative_share: float
) -> Float[Tensor, ""]:
    """Contrastive loss of n positive pairs (i, i) and n(n − 1) negative pairs (i, j), n ≥ 2."""
    anchor, positive = descriptors
    distances = pairwise(anchor, positive, "euclidean")
    others = ~torch.eye(len(anchor), dtype=torch.bool, device=anchor.device)
    # The diagonal pays 0: a mask keeps the shape fixed, an index list would not.
    apart = torch.relu(radius - distances).square() * others
    negative = apart.sum() / (len(anchor) * (len(anchor) - 1))
    return _weighted(paired(anchor, positive, "squared").mean(), negative, negative_share)


def contrastive_triplets(
    descriptors: Float[Tensor, "3 n d"], *, radius: float, negative_share: float
) -> Float[Tensor, ""]:
    """Contrastive loss of pairs (anchor, positive) and pairs (anchor, negative)."""
    anchor, positive, negative = descriptors
    apart = torch.relu(radius - paired(anchor, negative, "euclidean")).square()
    return _weighted(paired(anchor, positive, "squared").mean(), apart.mean(), negative_share)


def _weighted(
    positive: Float[Tensor, ""], negative: Float[Tensor, ""], negative_share: float
) -> Float[Tensor, ""]:
    """Source: Chopra et al., CVPR 2005; equal shares are the mean over balanced pairs."""
    return ((1 - negative_share) * positive + negative_share * negative) / 2
