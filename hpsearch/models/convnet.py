"""Descriptor network of convolutional stages: plain or residual blocks, three normalizations."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch import config
from hpsearch.models.descriptors import channels_last_rows, l2_normalize, standardize
from hpsearch.models.layers import Dropout, scale_channels
from hpsearch.shapes import Float

FRN_EPSILON = 1e-6
"""Epsilon of filter response normalization (Singh and Krishnan 2020; HyNet)."""
TLU_START = -1.0
"""Initial threshold of a TLU, as in HyNet's published code."""


class FilterResponseNorm(nn.Module):
    """Filter response normalization: x / √(mean of x² over the map + ε), then scale and shift.

    The mean is computed in float32 or better. Source: Singh and Krishnan, CVPR 2020, eq. 1 to 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        scale = torch.rsqrt(wide.square().mean(dim=(2, 3), keepdim=True) + FRN_EPSILON)
        return (wide * scale * self.weight + self.bias).to(x.dtype)


class TLU(nn.Module):
    """Thresholded linear unit: max(x, τ) with a learned τ for each map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tau = nn.Parameter(torch.full((1, channels, 1, 1), TLU_START))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return torch.maximum(x, self.tau.to(x.dtype))


class BlurPool(nn.Module):
    """Anti-aliased halving of a map: binomial 3×3 filter, every second pixel, borders reflected.

    Source: Zhang, ICML 2019, with its 3×3 filter.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer(
            "kernel", torch.outer(line, line).expand(channels, 1, 3, 3).clone(), persistent=False
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h/2 w/2"]:
        padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(padded, self.kernel.to(x.dtype), stride=2, groups=len(self.kernel))


class ConvNet(nn.Module):
    """Descriptor of convolutional stages, from raw gray levels (B, 1, 32, 32) to (B, d).

    Patches are rotated by 180° first, for the reason that ``L2Net`` gives.

    Args:
        settings: stages, normalization, last layer and descriptor dimension.

    Source: L2-Net (Tian et al., CVPR 2017), HardNet (Mishchuk et al., NeurIPS 2017) and HyNet
    (Tian et al., NeurIPS 2020) are settings of it.
    """

    def __init__(self, settings: config.ConvNet) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 1
        for stage in settings.stages:
            outputs = scale_channels(stage.channels, width=settings.width)
            kind = ResidualBlock if stage.residual else PlainBlock
            for number in range(stage.depth):
                first = stage if number == 0 else stage.model_copy(update={"reduce": "none"})
                blocks.append(kind(channels, outputs, first, settings))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.input_layers = nn.Sequential(
            *((FilterResponseNorm(1), TLU(1)) if settings.input_norm == "frn" else ())
        )
        self.dropout = Dropout(settings.dropout)
        side = settings.side if settings.head == "covering" else 1
        self.last = nn.Conv2d(channels, settings.descriptor_dim, side, bias=settings.last_bias)
        self.final_norm = (
            nn.BatchNorm1d(
                settings.descriptor_dim,
                eps=settings.norm_eps,
                momentum=settings.bn_momentum,
                affine=False,
            )
            if settings.final_norm
            else nn.Identity()
        )
        self.settings = settings

    def forward(self, x: Float[Tensor, "b 1 32 32"]) -> Float[Tensor, "b d"]:
        if self.settings.input_norm == "patch":
            x = standardize(x)
        maps = self.blocks(self.input_layers(x).flip(2, 3))
        if self.settings.head == "pooled":
            maps = maps.mean(dim=(2, 3), keepdim=True)
        rows = self.dropout(channels_last_rows(maps))
        weight = channels_last_rows(self.last.weight)
        y = self.final_norm(functional.linear(rows, weight, self.last.bias))
        return l2_normalize(y) if self.settings.unit_norm else y


class PlainBlock(nn.Module):
    """Block of convolution, normalization, activation and pooling."""

    def __init__(
        self, inputs: int, outputs: int, stage: config.Stage, network: config.ConvNet
    ) -> None:
        super().__init__()
        self.conv = _convolution(inputs, outputs, stage, network)
        self.norm = _normalization(outputs, network)
        self.activation = _activation(outputs, stage)
        self.pool = _pooling(outputs, stage)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o g v"]:
        return self.pool(self.activation(self.norm(self.conv(x))))


class ResidualBlock(nn.Module):
    """Block of two convolutions whose input is added before the last activation."""

    def __init__(
        self, inputs: int, outputs: int, stage: config.Stage, network: config.ConvNet
    ) -> None:
        super().__init__()
        self.first = PlainBlock(inputs, outputs, stage, network)
        inner = stage.model_copy(update={"reduce": "none"})
        self.conv = _convolution(outputs, outputs, inner, network)
        self.norm = _normalization(outputs, network)
        self.activation = _activation(outputs, stage)
        self.shortcut = nn.Sequential()
        if inputs != outputs or stage.reduce != "none":
            flat = stage.model_copy(update={"kernel": 1})
            self.shortcut = nn.Sequential(
                _pooling(inputs, stage),
                _convolution(inputs, outputs, flat, network),
                _normalization(outputs, network),
            )

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o g v"]:
        return self.activation(self.norm(self.conv(self.first(x))) + self.shortcut(x))


def _convolution(
    inputs: int, outputs: int, stage: config.Stage, network: config.ConvNet
) -> nn.Conv2d:
    return nn.Conv2d(
        inputs,
        outputs,
        stage.kernel,
        stride=2 if stage.reduce == "stride" else 1,
        padding=stage.kernel // 2,
        bias=network.bias,
    )


def _normalization(channels: int, network: config.ConvNet) -> nn.Module:
    match network.norm:
        case "frn":
            return FilterResponseNorm(channels)
        case "group":
            groups = max(n for n in range(1, network.groups + 1) if channels % n == 0)
            return nn.GroupNorm(groups, channels, eps=network.norm_eps, affine=network.affine)
        case "batch":
            return nn.BatchNorm2d(
                channels,
                eps=network.norm_eps,
                momentum=network.bn_momentum,
                affine=network.affine,
            )


def _activation(channels: int, stage: config.Stage) -> nn.Module:
    match stage.activation:
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(0.1)
        case "silu":
            return nn.SiLU()
        case "tlu":
            return TLU(channels)


def _pooling(channels: int, stage: config.Stage) -> nn.Module:
    match stage.reduce:
        case "blur":
            return BlurPool(channels)
        case "max":
            return nn.MaxPool2d(2)
        case _:
            return nn.Identity()
