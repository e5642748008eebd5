"""Denoisers: U-Nets and DnCNN."""

import hashlib
import io
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch.errors import UserError
from hpsearch.models.layers import pad_after, scale_channels
from hpsearch.shapes import Float

MAX_GRAY = 255.0
"""Gray levels per unit of the network's internal scale."""


class ShallowUNet(nn.Module):
    """The denoiser of the N-HPatches baseline; 59,777 parameters at width 1.

    Gray levels in, gray levels out (not clipped). It computes on gray / 255. All
    layers but the biases are homogeneous, so the scale only affects the step size of biases.

    Args:
        width: factor on every hidden channel count (16, 32, 64, 64).

    Source: the layer table of MatchLab-Imperial/keras_triplet_descriptor.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3 = (scale_channels(channels, width=width) for channels in (16, 32, 64))
        self.first = nn.Conv2d(1, c1, 3, padding=1)
        self.down = nn.Conv2d(c1, c2, 3, padding=1)
        self.up = nn.Conv2d(c2, c3, 2)
        self.merge = nn.Conv2d(c1 + c3, c3, 3, padding=1)
        self.last = nn.Conv2d(c3, 1, 3, padding=1)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        skip = functional.relu(self.first(x / MAX_GRAY), inplace=True)
        low = functional.relu(self.down(functional.max_pool2d(skip, 2)), inplace=True)
        high = functional.interpolate(low, scale_factor=2, mode="nearest")
        high = functional.relu(self.up(pad_after(high)), inplace=True)
        high = functional.relu(self.merge(torch.cat([skip, high], dim=1)), inplace=True)
        return self.last(high) * MAX_GRAY


class UNet(nn.Module):
    """U-Net: 3×3 convolutions with ReLU, channels doubled per level, skip connections.

    Gray levels in, gray levels out (not clipped), computed on gray / 255 as ``ShallowUNet`` is.
    Decoder: nearest upsampling, 2×2 convolution and ReLU, concatenation, 3×3 convolutions and ReLU.
    Height and width must be multiples of 2 to the power of ``levels``.

    Args:
        levels: number of times that the map is halved, at least 1.
        channels: feature maps at full resolution.
        convolutions: 3×3 convolutions per level of the encoder and of the decoder.

    Source: Ronneberger et al., MICCAI 2015; ``config.UNet`` lists the variants of the reports.
    """

    def __init__(self, *, levels: int, channels: int, convolutions: int) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(levels + 1)]
        inputs = [1, *widths[:-1]]
        self.down = nn.ModuleList(
            _conv_layers(i, o, convolutions) for i, o in zip(inputs, widths, strict=True)
        )
        self.up = nn.ModuleList(nn.Conv2d(2 * width, width, 2) for width in widths[-2::-1])
        self.merge = nn.ModuleList(
            _conv_layers(2 * width, width, convolutions) for width in widths[-2::-1]
        )
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        y = self.down[0](x / MAX_GRAY)
        skips = []
        for down in self.down[1:]:
            skips.append(y)
            y = down(functional.max_pool2d(y, 2))
        for up, merge in zip(self.up, self.merge, strict=True):
            y = functional.interpolate(y, scale_factor=2, mode="nearest")
            y = functional.relu(up(pad_after(y)), inplace=True)
            y = merge(torch.cat([skips.pop(), y], dim=1))
        return self.last(y) * MAX_GRAY


def _conv_layers(inputs: int, outputs: int, count: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(count):
        layers += [nn.Conv2d(outputs if number else inputs, outputs, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


class DnCNN(nn.Module):
    """DnCNN: a chain of 3×3 convolutions whose output is subtracted from its input.

    Gray levels in, gray levels out (not clipped), computed on gray / 255 as in published weights.
    The first convolution has biases and no batch normalization, the last has neither, the others
    have batch normalization instead of biases: 556,096 parameters at depth 17.

    Args:
        depth: number of convolutions, at least 3.
        channels: feature maps between them.

    Source: Zhang et al., IEEE TIP 2017; layer by layer as in cszn/DnCNN, epsilon included. Its
    momentum of 0.95 (0.05 of the past kept) is not used: statistics of one batch are noisy.
    """

    def __init__(self, *, depth: int, channels: int) -> None:
        super().__init__()
        middle: list[nn.Module] = []
        for _ in range(depth - 2):
            middle.append(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
            middle += [nn.BatchNorm2d(channels, eps=1e-4), nn.ReLU()]
        first = nn.Conv2d(1, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        self.body = nn.Sequential(first, nn.ReLU(), *middle)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        return x - MAX_GRAY * self.last(self.body(x / MAX_GRAY))

    @torch.no_grad()
    def zero_init_output_(self) -> "DnCNN":
        """Set the last weights to 0, so that the network starts as the identity."""
        self.last.weight.zero_()
        return self


class FrozenBackbone(nn.Module):
    """Frozen, trained network (``front``) followed by a trainable one (``head``).

    The frozen part is always in evaluation mode; its batch statistics would drift otherwise.
    """

    def __init__(self, *, front: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.front = front.requires_grad_(False).eval()
        self.head = head

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """Set the mode of the head only."""
        super().train(mode)
        self.front.eval()
        return self

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.head(self.front(x))


def load_weights(network: nn.Module, path: str, *, sha256: str | None = None) -> None:
    """Load a state dict, written by ``torch.save``, into ``network``; no code is executed.

    Raises:
        UserError: if the file is missing or damaged, has another SHA-256, or does not match the
            network.
    """
    try:
        stored = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"the weights {path!r} cannot be read ({error.strerror}); give a file that every "
            "worker can read"
        ) from error
    found = hashlib.sha256(stored).hexdigest()
    if sha256 not in (None, found):
        raise UserError(
            f"the weights {path!r} have SHA-256 {found}, not {sha256}; correct one of them"
        )
    try:
        network.load_state_dict(torch.load(io.BytesIO(stored), "cpu", weights_only=True))
    except Exception as error:  # a reader of crafted bytes may raise anything
        raise UserError(
            f"the weights {path!r} are not a state dict of {network.__class__.__name__} in the "
            "shape of the settings; save one with torch.save, or correct depth and channels"
        ) from error
