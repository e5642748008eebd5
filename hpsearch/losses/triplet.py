"""What triplets pay: m(d(a,p) − d(a,n)), averaged."""

import torch
from torch import Tensor
from torch.nn import functional

from hpsearch.config import Distance, HardMargin, Margin, SoftMargin
from hpsearch.losses.distances import paired, pairwise
from hpsearch.losses.miners import hardest, same_group
from hpsearch.shapes import Float


def pay(excess: Float[Tensor, "..."], margin: Margin) -> Float[Tensor, "..."]:
    """The hinge [α + z]₊ or ln(1 + exp(α + z)) of each ``excess`` z, at least 0."""
    match margin:
        case HardMargin(alpha=alpha):
            return torch.relu(excess + alpha)
        case SoftMargin(alpha=alpha):
            return functional.softplus(excess + alpha)


def triplet(
    descriptors: Float[Tensor, "3 n d"], *, distance: Distance, margin: Margin
) -> Float[Tensor, ""]:
    """Mean over triplets; ``descriptors`` are anchors, positives, negatives, row by row.

    Source: MatchLab-Imperial/keras_triplet_descriptor, with ``mean_squared`` and α = 1.
    """
    anchor, positive, negative = descriptors
    excess = paired(anchor, positive, distance) - paired(anchor, negative, distance)
    return pay(excess, margin).mean()


def batch_hard(
    descriptors: Float[Tensor, "1 n d"],
    *,
    groups: int,
    views: int,
    distance: Distance,
    margin: Margin,
) -> Float[Tensor, ""]:
    """Mean over anchors of the farthest positive against the nearest negative in the batch.

    Args:
        descriptors: group-major, n = groups · views.
        groups: S, points a batch, at least 2.
        views: K, patches of each point, at least 2.
        distance: what is mined with and paid for.
        margin: how an excess is paid.

    Source: Hermans et al. 2017, arXiv:1703.07737, eq. 5, as a mean.
    """
    x = descriptors[0]
    # Every distance grows with the squared one, so it mines the same triplets without a root.
    distances = pairwise(x.detach(), x.detach(), "squared")
    mined = hardest(distances, same_group(groups, views, device=x.device))
    excess = paired(x, x[mined.positive], distance) - paired(x, x[mined.negative], distance)
    return pay(excess, margin).mean()
