"""Which positive and negative an anchor pays for: indices from a matrix of distances."""

from typing import NamedTuple

import torch
from torch import Tensor

from hpsearch.shapes import Bool, Float, Int


class Mined(NamedTuple):
    """Columns chosen for each anchor (row)."""

    positive: Int[Tensor, " n"]
    negative: Int[Tensor, " n"]


def same_group(
    groups: int, views: int, *, device: torch.device | str = "cpu"
) -> Bool[Tensor, "n n"]:
    """Which pairs of a group-major S×K batch show the same point; depends on S and K alone."""
    group = torch.arange(groups * views, device=device) // views
    return group[:, None] == group


@torch.no_grad()
def hardest(distances: Float[Tensor, "n n"], same: Bool[Tensor, "n n"]) -> Mined:
    """The farthest positive and the nearest negative of each anchor; the first one where tied.

    A patch is its own nearest positive, so it is chosen only where all positives coincide with it.

    Source: Hermans et al. 2017, arXiv:1703.07737, eq. 5.
    """
    positive = distances.masked_fill(~same, -torch.inf).argmax(dim=1)
    negative = distances.masked_fill(same, torch.inf).argmin(dim=1)
    return Mined(positive, negative)
