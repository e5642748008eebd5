"""Networks from noisy to clean patches, both in raw grey levels 0..255."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch.models.layers import pad_after, scaled
from hpsearch.shapes import Float

GREY = 255.0
"""Grey levels per unit that a network computes in."""


class ShallowUNet(nn.Module):
    """The denoiser of the N-HPatches baseline; 59,777 parameters at width 1.

    Grey levels in, grey levels out (not clipped). Inside it computes on grey / 255. All layers
    but the biases are homogeneous, so the scale changes nothing but how far a step moves a bias.

    Args:
        width: factor on every hidden channel count (16, 32, 64, 64).

    Source: the layer table of MatchLab-Imperial/keras_triplet_descriptor.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3 = (scaled(channels, width=width) for channels in (16, 32, 64))
        self.first = nn.Conv2d(1, c1, 3, padding=1)
        self.down = nn.Conv2d(c1, c2, 3, padding=1)
        self.up = nn.Conv2d(c2, c3, 2)
        self.merge = nn.Conv2d(c1 + c3, c3, 3, padding=1)
        self.last = nn.Conv2d(c3, 1, 3, padding=1)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        skip = functional.relu(self.first(x / GREY))
        low = functional.relu(self.down(functional.max_pool2d(skip, 2)))
        high = functional.interpolate(low, scale_factor=2, mode="nearest")
        high = functional.relu(self.up(pad_after(high)))
        high = functional.relu(self.merge(torch.cat([skip, high], dim=1)))
        return self.last(high) * GREY


class UNet(nn.Module):
    """3×3 convolutions with ReLU, doubled channels at every level, maps of equal size joined.

    Grey levels in, grey levels out (not clipped), computed on grey / 255 as ``ShallowUNet`` is.
    On the way up: nearest up-sampling, 2×2 convolution and ReLU, join, 3×3 convolutions and ReLU.
    Height and width must be multiples of 2 to the power of ``levels``.

    Args:
        levels: times the map is halved, at least 1.
        channels: feature maps at full resolution.
        convolutions: 3×3 convolutions a level and way.

    Source: Ronneberger et al., MICCAI 2015; ``config.UNet`` says which report means which.
    """

    def __init__(self, *, levels: int, channels: int, convolutions: int) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(levels + 1)]
        inputs = [1, *widths[:-1]]
        self.down = nn.ModuleList(
            _convolutions(i, o, convolutions) for i, o in zip(inputs, widths, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(2 * width, width, 2) for width in widths[-2::-1])
        self.merge = nn.ModuleList(
            _convolutions(2 * width, width, convolutions) for width in widths[-2::-1]
        )
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        y = self.down[0](x / GREY)
        skips = []
        for down in self.down[1:]:
            skips.append(y)
            y = down(functional.max_pool2d(y, 2))
        for up, merge in zip(self.up, self.merge, strict=True):
            y = functional.interpolate(y, scale_factor=2, mode="nearest")
            y = functional.relu(up(pad_after(y)))
            y = merge(torch.cat([skips.pop(), y], dim=1))
        return self.last(y) * GREY


def _convolutions(inputs: int, outputs: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(count):
        layers += [nn.Conv2d(outputs if number else inputs, outputs, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)
