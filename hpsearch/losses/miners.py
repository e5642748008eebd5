"""Triplet miners: indices of positives and negatives from a distance matrix."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hpsearch.config import (
    BatchMiner,
    DistanceWeightedMiner,
    PercentileMiner,
    SemiHardMiner,
)
from hpsearch.shapes import Bool, Float, Int


class HardIndices(NamedTuple):
    """Column of the mined positive and negative of each anchor (row)."""

    positive: Int[Tensor, " n"]
    negative: Int[Tensor, " n"]


def positive_mask(n: int, *, views: int, device: torch.device | str = "cpu") -> Bool[Tensor, "n n"]:
    """Mask (n, n) of pairs of the same point in a group-major batch of n = S·K patches."""
    group = torch.arange(n, device=device) // views
    return group[:, None] == group


@torch.no_grad()
def batch_hard_indices(distances: Float[Tensor, "n n"], same: Bool[Tensor, "n n"]) -> HardIndices:
    """Farthest positive and nearest negative of each anchor; the first one in case of ties.

    A patch is its own nearest positive, so it is chosen only if all positives coincide with it.

    Source: Hermans et al. 2017, arXiv:1703.07737, eq. 5.
    """
    positive = distances.masked_fill(~same, -torch.inf).argmax(dim=1)
    negative = distances.masked_fill(same, torch.inf).argmin(dim=1)
    return HardIndices(positive, negative)


class AllPairIndices(NamedTuple):
    """Columns of all positives and all negatives of each anchor (row)."""

    positive: Int[Tensor, "n p"]
    negative: Int[Tensor, "n m"]


def all_pair_indices(n: int, *, views: int, device: torch.device | str = "cpu") -> AllPairIndices:
    """Indices of all positives and negatives in a group-major batch of n = S·K patches.

    Each anchor has K − 1 positives and n − K negatives, so a valid triplet is any of the one with
    any of the other, and no mask over n³ triplets is needed.
    """
    anchor = torch.arange(n, device=device)[:, None]
    start = anchor // views * views
    positive = start + (anchor - start + torch.arange(1, views, device=device)) % views
    negative = (start + torch.arange(views, n, device=device)) % n
    return AllPairIndices(positive, negative)


class TripletIndices(NamedTuple):
    """Columns of the positives and negatives of each anchor (row), one triplet a column."""

    positive: Int[Tensor, "n t"]
    negative: Int[Tensor, "n t"]


@torch.no_grad()
def mine_triplets(
    distances: Float[Tensor, "n n"], miner: BatchMiner, *, views: int, descriptor_dim: int
) -> TripletIndices:
    """Triplets of a group-major batch: one of each anchor, or one of each of its positives.

    Args:
        distances: distances between all patches, Euclidean for ``DistanceWeightedMiner``.
        miner: rule by which triplets are chosen.
        views: K, patches of each point.
        descriptor_dim: dimension of the descriptors.
    """
    columns = all_pair_indices(len(distances), views=views, device=distances.device)
    near, far = distances.gather(1, columns.positive), distances.gather(1, columns.negative)
    match miner:
        case PercentileMiner(quantile=q):
            positive = columns.positive.gather(1, _at_percentile(-near, q))
            return TripletIndices(positive, columns.negative.gather(1, _at_percentile(far, q)))
        case SemiHardMiner():
            chosen = _semi_hard(near, far)
        case DistanceWeightedMiner():
            chosen = _distance_weighted(far, miner, views - 1, descriptor_dim)
    return TripletIndices(columns.positive, columns.negative.gather(1, chosen))


def _at_percentile(hardness: Float[Tensor, "n m"], quantile: float) -> Int[Tensor, "n 1"]:
    """Column of the value at a percentile of its row, rounded down; the lowest at 0."""
    rank = math.floor(quantile * (hardness.shape[1] - 1) / 100)
    if rank == 0:
        return hardness.argmin(dim=1, keepdim=True)
    return hardness.kthvalue(rank + 1, dim=1, keepdim=True).indices


def _semi_hard(near: Float[Tensor, "n p"], far: Float[Tensor, "n m"]) -> Int[Tensor, "n p"]:
    """For each positive the nearest negative that is farther, else the farthest one."""
    farthest, chosen = far.argmax(dim=1), []
    for positive in near.unbind(dim=1):  # one at a time, because n·p·m numbers may not fit
        farther = far > positive[:, None]
        nearest = far.masked_fill(~farther, torch.inf).argmin(dim=1)
        chosen.append(torch.where(farther.any(dim=1), nearest, farthest))
    return torch.stack(chosen, dim=1)


MIN_HALF_COSINE = 1e-6
"""Smallest 1 − d²/4 in the weights of distances, whose logarithm is taken."""


def _distance_weighted(
    far: Float[Tensor, "n m"], miner: DistanceWeightedMiner, draws: int, descriptor_dim: int
) -> Int[Tensor, "n draws"]:
    """Columns drawn by 1 / q(d), where log q(d) = (D − 2)·log d + (D − 3)/2·log(1 − d²/4)."""
    d = far.clamp(min=miner.cutoff)
    half = (1 - d.square() / 4).clamp(min=MIN_HALF_COSINE)
    weights = (2 - descriptor_dim) * d.log() - (descriptor_dim - 3) / 2 * half.log()
    allowed = far <= miner.upper
    # An anchor with no negative that near draws from all of them alike.
    weights = torch.where(allowed.any(dim=1, keepdim=True), weights, torch.zeros_like(weights))
    allowed = allowed | ~allowed.any(dim=1, keepdim=True)
    weights = weights.masked_fill(~allowed, -torch.inf)
    chosen = []
    for _ in range(draws):
        # The largest of log-weights plus Gumbel noise is a draw by the weights, without a sum.
        noise = -torch.empty_like(weights).exponential_().log()
        chosen.append((weights + noise).argmax(dim=1))
    return torch.stack(chosen, dim=1)


class PercentileIndices(NamedTuple):
    """Negatives of each pair i of anchor and positive, by row and by column."""

    positive: Int[Tensor, " n"]
    """Negative of row i: positive j ≠ i as negative of anchor i."""
    anchor: Int[Tensor, " n"]
    """Negative of column i: anchor j ≠ i as negative of positive i."""


@torch.no_grad()
def percentile_negatives(distances: Float[Tensor, "n n"], *, quantile: float) -> PercentileIndices:
    """Negative at percentile ``quantile`` of each row and each column without the diagonal.

    Args:
        distances: distances of anchor i to positive j; pairs on the diagonal; n at least 2.
        quantile: percent of the n − 1 negatives that are nearer, rounded down; 0 = the nearest.

    Source: R1, figure 3; for the nearest, Mishchuk et al., NeurIPS 2017.
    """
    n = len(distances)
    rank = math.floor(quantile * (n - 2) / 100)
    others = distances.clone().fill_diagonal_(torch.inf)
    if rank == 0:
        return PercentileIndices(others.argmin(dim=1), others.argmin(dim=0))
    row = others.kthvalue(rank + 1, dim=1).indices
    column = others.T.contiguous().kthvalue(rank + 1, dim=1).indices
    return PercentileIndices(row, column)
