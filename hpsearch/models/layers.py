"""What the networks share: channel counts, Keras' padding, He-normal initialization."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch.shapes import Float

TRUNCATED_STD = 0.87962566103423978
"""Standard deviation of a standard normal cut off at ±2."""


DROPOUT_RESOLUTION = 2**16
"""Of the uniform numbers that a dropout mask on a CPU is drawn from."""


def scale_channels(channels: int, *, width: float) -> int:
    """``channels`` times a width factor, at least 1."""
    return max(1, round(channels * width))


def pad_after(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h+1 w+1"]:
    """One row of zeros below and one column to the right: Keras' "same" padding of 2×2 kernels.

    ``padding=1`` would shift the map by one pixel.
    """
    return functional.pad(x, (0, 1, 0, 1))


class Dropout(nn.Dropout):
    """Dropout whose mask costs little on a CPU, where torch draws it on one core.

    There it is drawn by NumPy in 16 bits a number, from a seed that torch draws: a tenth of the
    time, and as repeatable. The share that stays is exact to 2⁻¹⁶, and so is the scale.
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
