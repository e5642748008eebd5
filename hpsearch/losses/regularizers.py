"""Regularizers next to a loss, and the term of distillation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpsearch.config import GOR, SOSR, NormDifference, PKSampler, Regularizer, Sampler
from hpsearch.losses.distances import pairwise_distance, safe_sqrt, to_float32
from hpsearch.losses.miners import positive_mask
from hpsearch.shapes import Bool, Float

MIN_SQUARED_NORM = 1e-10
"""Added to squared norms, so that a zero descriptor has the cosine 0 and a gradient."""


def regularization(
    terms: Sequence[Regularizer],
    sampler: Sampler,
    descriptors: Float[Tensor, "calls n d"],
    norms: Float[Tensor, "calls n"] | None,
) -> Float[Tensor, ""]:
    """Weighted sum of the regularizers of a batch.

    Args:
        terms: settings of the regularizers.
        sampler: sampler of the batch, as in ``build_loss``.
        descriptors: descriptors of the batch, as in ``build_loss``.
        norms: norms before the division by them; required by ``NormDifference`` alone.
    """
    total = descriptors.new_zeros(())
    for term in terms:
        match term:
            case SOSR(neighbors=k, weight=weight):
                value = second_order_similarity(descriptors, neighbors=k)
            case GOR(weight=weight):
                value = global_orthogonality(descriptors, sampler)
            case NormDifference(weight=weight):
                assert norms is not None, "norm_difference needs the norms"
                value = (norms[0] - norms[1]).square().mean()
        total = total + weight * value
    return total


def second_order_similarity(
    descriptors: Float[Tensor, "2 n d"], *, neighbors: int
) -> Float[Tensor, ""]:
    """Mean over pairs i of √Σ_j (d(a_i, a_j) − d(p_i, p_j))² over nearest neighbors j.

    Source: Tian et al., SOSNet, CVPR 2019.
    """
    calls = [pairwise_distance(call, call, "euclidean") for call in descriptors]
    near = torch.stack([_nearest(call.detach(), neighbors) for call in calls]).any(dim=0)
    return safe_sqrt(((calls[0] - calls[1]).square() * near).sum(dim=1)).mean()


def _nearest(distances: Float[Tensor, "n n"], neighbors: int) -> Bool[Tensor, "n n"]:
    """Mask of the nearest neighbors of each row, without itself."""
    others = distances.clone().fill_diagonal_(torch.inf)
    k = min(neighbors, len(distances) - 1)
    columns = others.topk(k, dim=1, largest=False).indices
    return torch.zeros_like(distances, dtype=torch.bool).scatter_(1, columns, True)


def global_orthogonality(
    descriptors: Float[Tensor, "calls n d"], sampler: Sampler
) -> Float[Tensor, ""]:
    """M₁² + [M₂ − 1/D]₊ of the cosines of descriptors of different points.

    The pairs are anchors and negatives of triplets, all anchors and positives of different pairs,
    or all patches of different points of a P×K batch.

    Source: Zhang et al., ICCV 2017.
    """
    first, second = to_unit(descriptors[0]), to_unit(descriptors[-1])
    if len(descriptors) == 3:
        cosines = (first * second).sum(dim=1)
        means = cosines.mean(), cosines.square().mean()
    else:
        views = sampler.views if isinstance(sampler, PKSampler) else 1
        n = len(first)
        apart = ~positive_mask(n, views=views, device=first.device)
        # A mask keeps the shape fixed, an index list would not.
        cosines = (first @ second.T) * apart
        pairs = n * (n - views)
        means = cosines.sum() / pairs, cosines.square().sum() / pairs
    return means[0].square() + torch.relu(means[1] - 1 / descriptors.shape[2])


def to_unit(x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
    """Divide descriptors by their norms, in float32 or better; 0 stays 0."""
    x = to_float32(x)
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + MIN_SQUARED_NORM)


def similarity_difference(
    student: Float[Tensor, "calls n d"], teacher: Float[Tensor, "calls n e"]
) -> Float[Tensor, ""]:
    """Mean over calls and pairs of patches of the squared difference of their cosines.

    Source: Park et al., Relational Knowledge Distillation, CVPR 2019, with cosines of pairs.
    """
    mine, other = (x @ x.transpose(1, 2) for x in (to_unit(student), to_unit(teacher)))
    return (mine - other).square().mean()
