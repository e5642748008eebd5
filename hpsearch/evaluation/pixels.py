"""The plainest yardstick: the pixels themselves."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from hpsearch.errors import UserError
from hpsearch.shapes import Float, UInt8

SIDE = 16
FLOOR = 1.0
"""Grey levels; the least standard deviation, so that a flat patch is not blown up."""

CHUNK = 8192


def normalised_pixels(patches: UInt8[Tensor, "n h w"]) -> Float[Tensor, "n 256"]:
    """Patches shrunk to 16×16 by averaging areas, then (x - mean) / max(std, 1 grey level).

    Mean and (population) standard deviation are those of the 256 values of each patch. From 32×32
    every value is the mean of 2×2 pixels; from 65×65 areas overlap by up to a pixel.

    Raises:
        UserError: if the patches are not at least 16×16.
    """
    if patches.ndim != 3 or min(patches.shape[1:]) < SIDE:
        raise UserError(f"patches must be (n, h, w), at least 16×16, got {tuple(patches.shape)}")
    return torch.cat([_normalised(chunk) for chunk in patches.split(CHUNK)])


def _normalised(patches: UInt8[Tensor, "n h w"]) -> Float[Tensor, "n 256"]:
    small = adaptive_avg_pool2d(patches.float()[:, None], SIDE).flatten(1)
    centred = small - small.mean(dim=1, keepdim=True)
    deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / deviation.clamp_min(FLOOR)
