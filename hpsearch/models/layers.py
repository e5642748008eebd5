"""Shared parts of the networks: channel counts, padding, dropout, initialization."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch.shapes import Float

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal distribution truncated at ±2."""


DROPOUT_RESOLUTION = 2**16
"""Number of levels of the uniform numbers from which a CPU dropout mask is drawn."""


def scale_channels(channels: int, *, width: float) -> int:
    """Number of channels times a width factor, rounded, at least 1."""
    return max(1, round(channels * width))


def pad_after(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h+1 w+1"]:
    """Add a row of zeros below and a column to the right: Keras' "same" padding of 2×2 kernels.

    ``padding=1`` would shift the map by one pixel.
    """
    return functional.pad(x, (0, 1, 0, 1))


class Dropout(nn.Dropout):
    """Dropout with a fast mask on CPUs, where torch samples it on one core.

    On a CPU, NumPy samples 16 bits per element from a seed of torch's generator: a tenth of the
    time, and as reproducible. The kept share and the scale are exact to 2⁻¹⁶.
    """

    def forward(self, input: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        dropped = round(DROPOUT_RESOLUTION * self.p)
        by_torch = input.device.type != "cpu" or torch.compiler.is_compiling()
        if not self.training or dropped == 0 or by_torch:
            return super().forward(input)
        rng = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
        stays = rng.integers(0, DROPOUT_RESOLUTION, input.shape, dtype=np.uint16) >= dropped
        return input * torch.from_numpy(stays).to(input.dtype).mul_(
            DROPOUT_RESOLUTION / (DROPOUT_RESOLUTION - dropped)
        )


@torch.no_grad()
def he_normal_(network: nn.Module, *, generator: torch.Generator) -> None:
    """Initialize every convolution's weights with std √(2 / fan-in), and biases with 0, in place.

    The normal distribution is truncated at two standard deviations, as in Keras' ``he_normal``.

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


@torch.no_grad()
def orthogonal_(network: nn.Module, *, gain: float, generator: torch.Generator) -> None:
    """Initialize every convolution's weights orthogonally, and biases with 0, in place.

    Source: Saxe et al., ICLR 2014; Mishchuk et al., NeurIPS 2017 (gain 0.6 in the published code).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.orthogonal_(module.weight, gain=gain, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
