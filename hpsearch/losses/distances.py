"""Distances between descriptors, and margin losses over violations."""

import torch
from torch import Tensor
from torch.nn import functional

from hpsearch.config import Distance, HardMargin, Margin, SoftMargin
from hpsearch.shapes import Float


def margin_loss(violation: Float[Tensor, "..."], margin: Margin) -> Float[Tensor, "..."]:
    """Hinge [α + z]₊ or soft hinge ln(1 + exp(α + z)) of each ``violation`` z; at least 0."""
    match margin:
        case HardMargin(alpha=alpha):
            return torch.relu(violation + alpha)
        case SoftMargin(alpha=alpha):
            return functional.softplus(violation + alpha)


DISTANCE_EPSILON = 1e-6
"""Squared distances below this share of the squared norms are float32 rounding errors."""


def paired_distance(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], kind: Distance
) -> Float[Tensor, " n"]:
    """Distance between row i of ``x`` and row i of ``y``, from differences, without cancellation.

    The gradient of the Euclidean distance has length 1 at any positive distance.
    """
    return _from_squared((to_float32(x) - to_float32(y)).square().sum(dim=1), kind, x.shape[1])


def pairwise_distance(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], kind: Distance
) -> Float[Tensor, "n m"]:
    """Distance between every row of ``x`` and every row of ``y``, by one matrix product.

    Fast, but pairs closer than a thousandth of the spread count as equal, because their distance
    would be rounding error. Use it for mining, and ``paired_distance`` for the loss.
    """
    x, y = to_float32(x), to_float32(y)
    # Distances are shift-invariant, products are not: a common offset would cost precision.
    center = x.detach().mean(dim=0)
    x, y = x - center, y - center
    norms = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    squares = norms - 2 * (x @ y.T)
    return _from_squared(squares * (squares > DISTANCE_EPSILON * norms.detach()), kind, x.shape[1])


def to_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Convert to float32; float64 is unchanged."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _from_squared(squares: Float[Tensor, "..."], kind: Distance, d: int) -> Float[Tensor, "..."]:
    match kind:
        case "squared":
            return squares
        case "mean_squared":
            return squares / d
        case "euclidean":
            return safe_sqrt(squares)


def safe_sqrt(squares: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Root whose gradient is 0 where the root is."""
    # The slope of the root is infinite at 0, and masking afterward would give 0·∞ = NaN.
    apart = squares > 0
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
