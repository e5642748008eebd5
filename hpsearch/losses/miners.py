"""Triplet miners: indices of positives and negatives from a distance matrix."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

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
