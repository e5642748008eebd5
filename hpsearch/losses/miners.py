"""Which positive and negative an anchor pays for: indices from a matrix of distances."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hpsearch.shapes import Bool, Float, Int


class HardIndices(NamedTuple):
    """Columns chosen for each anchor (row)."""

    positive: Int[Tensor, " n"]
    negative: Int[Tensor, " n"]


def positive_mask(n: int, *, views: int, device: torch.device | str = "cpu") -> Bool[Tensor, "n n"]:
    """Which of the n = S·K patches of a group-major batch show the same point, K ``views`` each."""
    group = torch.arange(n, device=device) // views
    return group[:, None] == group


@torch.no_grad()
def batch_hard_indices(distances: Float[Tensor, "n n"], same: Bool[Tensor, "n n"]) -> HardIndices:
    """The farthest positive and the nearest negative of each anchor; the first one where tied.

    A patch is its own nearest positive, so it is chosen only where all positives coincide with it.

    Source: Hermans et al. 2017, arXiv:1703.07737, eq. 5.
    """
    positive = distances.masked_fill(~same, -torch.inf).argmax(dim=1)
    negative = distances.masked_fill(same, torch.inf).argmin(dim=1)
    return HardIndices(positive, negative)


class AllPairIndices(NamedTuple):
    """All positives and all negatives of each anchor (row)."""

    positive: Int[Tensor, "n p"]
    negative: Int[Tensor, "n m"]


def all_pair_indices(n: int, *, views: int, device: torch.device | str = "cpu") -> AllPairIndices:
    """Where a group-major batch of n = S·K patches has its positives and negatives.

    Each anchor has K − 1 positives and n − K negatives, so a valid triplet is any of the one with
    any of the other, and no mask over n³ triplets is needed.
    """
    anchor = torch.arange(n, device=device)[:, None]
    start = anchor // views * views
    positive = start + (anchor - start + torch.arange(1, views, device=device)) % views
    negative = (start + torch.arange(views, n, device=device)) % n
    return AllPairIndices(positive, negative)


class PercentileIndices(NamedTuple):
    """For each pair i of anchor and positive, another pair's patch on either side."""

    positive: Int[Tensor, " n"]
    """Row i's choice: j ≠ i, the negative is positive j of anchor i."""
    anchor: Int[Tensor, " n"]
    """Column i's choice: j ≠ i, the negative is anchor j of positive i."""


@torch.no_grad()
def percentile_negatives(distances: Float[Tensor, "n n"], *, quantile: float) -> PercentileIndices:
    """The negative at percentile ``quantile`` of each row and of each column without the diagonal.

    Args:
        distances: of anchor i to positive j; the diagonal holds the pairs; n at least 2.
        quantile: percent of the n − 1 negatives that are nearer, rounded down; 0 = the nearest.

    Source: R1, figure 3; the nearest are Mishchuk et al., NeurIPS 2017.
    """
    n = len(distances)
    rank = math.floor(quantile * (n - 2) / 100)
    others = distances.clone().fill_diagonal_(torch.inf)
    if rank == 0:
        return PercentileIndices(others.argmin(dim=1), others.argmin(dim=0))
    row = others.kthvalue(rank + 1, dim=1).indices
    column = others.T.contiguous().kthvalue(rank + 1, dim=1).indices
    return PercentileIndices(row, column)
