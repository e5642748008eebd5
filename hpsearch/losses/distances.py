"""Distances between descriptors, and margin losses over violations."""

import torch
from torch import Tensor
from torch.nn import functional

from hpsearch.config import Distance, HardMargin, Margin, SoftMargin
from hpsearch.shapes import Float


def pay(excess: Float[Tensor, "..."], margin: Margin) -> Float[Tensor, "..."]:
    """The hinge [α + z]₊ or ln(1 + exp(α + z)) of each ``excess`` z, at least 0."""
    match margin:
        case HardMargin(alpha=alpha):
            return torch.relu(excess + alpha)
        case SoftMargin(alpha=alpha):
            return functional.softplus(excess + alpha)


NOISE = 1e-6
"""Squared distances below this share of the squared norms are rounding of a float32 product."""


def paired(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], kind: Distance) -> Float[Tensor, " n"]:
    """Distance between row i of ``x`` and row i of ``y``, from differences, so without rounding.

    The gradient of the Euclidean distance has length 1 however close the two are.
    """
    return _of_squares((widened(x) - widened(y)).square().sum(dim=1), kind, x.shape[1])


def pairwise(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], kind: Distance
) -> Float[Tensor, "n m"]:
    """Distance between every row of ``x`` and every row of ``y``, by one matrix product.

    Fast, but pairs closer than a thousandth of the spread count as equal: their distance would be
    rounding, and its gradient noise. Mine with this, then pay with ``paired``.
    """
    x, y = widened(x), widened(y)
    # Distances ignore a shift, but products do not: a common offset would eat the digits.
    centre = x.detach().mean(dim=0)
    x, y = x - centre, y - centre
    norms = x.square().sum(dim=1)[:, None] + y.square().sum(dim=1)
    squares = norms - 2 * (x @ y.T)
    return _of_squares(squares * (squares > NOISE * norms.detach()), kind, x.shape[1])


def widened(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """At least float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _of_squares(squares: Float[Tensor, "..."], kind: Distance, d: int) -> Float[Tensor, "..."]:
    match kind:
        case "squared":
            return squares
        case "mean_squared":
            return squares / d
        case "euclidean":
            return _root(squares)


def _root(squares: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    # The slope of the root is infinite at 0, and masking afterwards would give 0·∞ = NaN.
    apart = squares > 0
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)
