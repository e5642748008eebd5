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
