"""Descriptor networks: L2-Net and its building blocks."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from hpsearch import config
from hpsearch.models.layers import Dropout, scale_channels
from hpsearch.shapes import Float

BATCH_NORM_EPSILON = 1e-3
"""Epsilon of batch normalization, as in Keras."""
MIN_PATCH_STD = 1e-2
"""Gray levels added to a patch's standard deviation, so that rounding of a constant patch's mean is
not amplified to full contrast; real patches have a deviation above 1."""
MIN_NORM = 1e-10
"""Added to a squared norm, so that a zero descriptor has a gradient (HardNet's value)."""


class ConvBlock(nn.Module):
    """Block of 3×3 convolution, batch normalization and ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, momentum: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPSILON, momentum=momentum)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o g v"]:
        # in place, since the gradients of a convolution or normalization need no output
        return self.norm(self.conv(x)).relu_()


class L2Net(nn.Module):
    """The descriptor of the N-HPatches baseline; 1,336,032 trainable parameters at width 1.

    Maps (B, 1, 32, 32) raw gray levels 0..255 to (B, d). Six blocks, dropout on the last map, then
    a linear 8×8 convolution.

    Patches are rotated by 180° first. Keras' "same" padding puts the row of zeros that stride 2
    needs *after* an even map, torch's before it; rotated, they agree without a copy of each map.
    So the kernels are the Keras network's, rotated by 180°.

    Args:
        settings: width, normalization, dropout (of the last map, in training mode) and
            descriptor dimension.

    Source: the layer table of MatchLab-Imperial/keras_triplet_descriptor; Tian et al., CVPR 2017;
    patch normalization and the root's epsilon as in Mishchuk et al., NeurIPS 2017.
    """

    def __init__(self, settings: config.L2Net) -> None:
        super().__init__()
        a, b, c = (scale_channels(channels, width=settings.width) for channels in (32, 64, 128))
        layers = [(1, a, 1), (a, a, 1), (a, b, 2), (b, b, 1), (b, c, 2), (c, c, 1)]
        momentum = settings.bn_momentum
        self.blocks = nn.Sequential(
            *(ConvBlock(i, o, stride=stride, momentum=momentum) for i, o, stride in layers)
        )
        self.dropout = Dropout(settings.dropout)
        self.last = nn.Conv2d(c, settings.descriptor_dim, 8)
        self.final_norm = (
            nn.BatchNorm1d(
                settings.descriptor_dim, eps=BATCH_NORM_EPSILON, momentum=momentum, affine=False
            )
            if settings.final_norm
            else nn.Identity()
        )
        self.unit_norm = settings.unit_norm
        self.input_norm = settings.input_norm

    def forward(self, x: Float[Tensor, "b 1 32 32"]) -> Float[Tensor, "b d"]:
        x = standardize(x) if self.input_norm else x
        rows = channels_last_rows(self.blocks(x.flip(2, 3)))
        y = self.final_norm(self._covered(self.dropout(rows)))
        return l2_normalize(y) if self.unit_norm else y

    def _covered(self, rows: Float[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        """Last convolution as one matrix product, because its kernel covers the map."""
        return functional.linear(rows, channels_last_rows(self.last.weight), self.last.bias)


def channels_last_rows(maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b hwc"]:
    """Feature maps as rows, in the layout of ``Compute.to_device``, without a copy."""
    return maps.permute(0, 2, 3, 1).flatten(1)


def standardize(x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Subtract each patch's mean and divide by its standard deviation; constant patches give 0."""
    std, mean = torch.std_mean(x, dim=(2, 3), keepdim=True)
    return (x - mean) / (std + MIN_PATCH_STD)


def l2_normalize(y: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Divide each row by its Euclidean norm, in float32 or better; a zero row stays 0."""
    wide = y.float() if y.dtype in (torch.bfloat16, torch.float16) else y
    return wide * torch.rsqrt(wide.square().sum(dim=1, keepdim=True) + MIN_NORM)
