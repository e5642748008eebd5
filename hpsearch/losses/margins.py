"""What an excess z = d(a,p) − d(a,n) pays."""

import torch
from torch import Tensor
from torch.nn import functional

from hpsearch.config import HardMargin, Margin, SoftMargin
from hpsearch.shapes import Float


def pay(excess: Float[Tensor, "..."], margin: Margin) -> Float[Tensor, "..."]:
    """The hinge [α + z]₊ or ln(1 + exp(α + z)) of each ``excess`` z, at least 0."""
    match margin:
        case HardMargin(alpha=alpha):
            return torch.relu(excess + alpha)
        case SoftMargin(alpha=alpha):
            return functional.softplus(excess + alpha)
