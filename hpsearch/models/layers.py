"""What the networks share: channel counts, Keras' padding, He-normal initialisation."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch.shapes import Float

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal cut off at ±2."""


def scaled(channels: int, *, width: float) -> int:
    """``channels`` times a width factor, at least 1."""
    return max(1, round(channels * width))


def pad_after(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h+1 w+1"]:
    """One row of zeros below and one column to the right.

    Keras' "same" padding for 2×2 kernels, and for 3×3 kernels of stride 2 on even sizes;
    ``padding=1`` would shift the map by one pixel.
    """
    return functional.pad(x, (0, 1, 0, 1))


@torch.no_grad()
def he_normal_(network: nn.Module, *, generator: torch.Generator) -> None:
    """Draw every convolution's weights anew, std √(2 / fan-in); set biases to 0.

    A normal cut off at two standard deviations, as Keras' ``he_normal``.

    Source: He et al., ICCV 2015, eq. 10; Keras ``VarianceScaling``.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            std = math.sqrt(2 / fan_in) / TRUNCATED_STD
            nn.init.trunc_normal_(
                module.weight, std=std, a=-2 * std, b=2 * std, generator=generator
            )
            if module.bias is not None:
                module.bias.zero_()
