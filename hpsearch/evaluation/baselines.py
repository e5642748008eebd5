"""Descriptors without training: RootSIFT and normalized pixels."""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from hpsearch.errors import UserError
from hpsearch.shapes import Float, UInt8

SIFT_CELLS, SIFT_ORIENTATIONS = 4, 8
"""Cells per side of SIFT's grid, and orientation bins of each."""

SIFT_BLUR = math.sqrt(1.6**2 - 0.5**2)
"""Standard deviation in pixels of the smoothing before gradients: to scale 1.6 from camera blur."""

SIFT_CHUNK = 512
"""Patches that are described at once."""


def sift(patches: UInt8[np.ndarray, "n h h"]) -> UInt8[np.ndarray, "n 128"]:
    """SIFT descriptor of each patch: keypoint at its center, upright, as wide as the patch.

    Patches are assumed to be in their dominant orientation, as in HPatches. A flat patch gives
    zeros. Equal to scikit-image's descriptor but for rounding, and nine times as fast, since the
    window, and so every weight, is the same for all patches.

    Raises:
        UserError: if the patches are not square.
    """
    if patches.ndim != 3 or patches.shape[1] != patches.shape[2]:
        raise UserError(f"patches must be (n, side, side), got {patches.shape}")
    if not len(patches):
        return np.empty((0, 128), np.uint8)
    chunks = (patches[i : i + SIFT_CHUNK] for i in range(0, len(patches), SIFT_CHUNK))
    return np.concatenate([_compute_sift(chunk) for chunk in chunks])


def root_sift(patches: UInt8[np.ndarray, "n h h"]) -> Float[np.ndarray, "n 128"]:
    """RootSIFT: square root of the SIFT descriptor divided by its sum; unit L2 norm, or zeros."""
    described = sift(patches).astype(np.float32)
    return np.sqrt(described / np.maximum(described.sum(axis=1, keepdims=True), 1))


def _compute_sift(patches: UInt8[np.ndarray, "n h h"]) -> UInt8[np.ndarray, "n 128"]:
    side = patches.shape[1]
    smooth, derive = _gaussian_matrices(side)
    image = torch.from_numpy(patches).float() / 255
    down, right = derive @ image @ smooth.T, smooth @ image @ derive.T
    magnitude = torch.hypot(down, right).flatten(1)
    turn = torch.atan2(right, down).flatten(1) * (SIFT_ORIENTATIONS / (2 * math.pi))
    below = turn.floor()
    share = turn - below  # of the next bin
    bins = torch.zeros(*magnitude.shape, SIFT_ORIENTATIONS)
    index = below.long().remainder(SIFT_ORIENTATIONS)[..., None]
    bins.scatter_(2, index, (magnitude * (1 - share))[..., None])
    bins.scatter_(2, (index + 1) % SIFT_ORIENTATIONS, (magnitude * share)[..., None])
    histograms = (_cell_weights(side) @ bins).flatten(1)
    limit = 0.2 * histograms.norm(dim=1, keepdim=True)
    histograms = torch.minimum(histograms, limit)
    norm = histograms.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    flat = patches.min(axis=(1, 2)) == patches.max(axis=(1, 2))
    described = (512 * histograms / norm).floor().clamp_max(255).to(torch.uint8).numpy()
    return np.where(flat[:, None], 0, described).astype(np.uint8)


@cache
def _gaussian_matrices(side: int) -> tuple[Float[Tensor, "h h"], Float[Tensor, "h h"]]:
    """Matrices that smooth the pixels of a row, and that smooth and differentiate them.

    Edge pixels repeat outside; differences are central, as of the smoothed row with its outside.
    """
    reach = int(4 * SIFT_BLUR + 0.5)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-(offsets**2) / (2 * SIFT_BLUR**2))
    kernel /= kernel.sum()
    smooth = torch.zeros(side + 2, side, dtype=torch.float64)
    for row in range(side + 2):
        for offset, weight in zip(range(-reach, reach + 1), kernel, strict=True):
            smooth[row, min(max(row - 1 + offset, 0), side - 1)] += weight
    derive = (smooth[2:] - smooth[:-2]) / 2
    return smooth[1:-1].float(), derive.float()


@cache
def _cell_weights(side: int) -> Float[Tensor, "cells pixels"]:
    """Weight of each pixel in each cell: bilinear in the cells' centers, Gaussian in the patch."""
    spacing = side / (SIFT_CELLS + 1)  # of the cells; half a cell reaches beyond them
    position = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    centers = (torch.arange(SIFT_CELLS, dtype=torch.float64) - (SIFT_CELLS - 1) / 2) * spacing
    near = (1 - (centers[:, None] - position).abs() / spacing).clamp_min(0)
    near *= torch.exp(-(position**2) / (2 * (SIFT_CELLS / 2 * spacing) ** 2))
    return torch.einsum("ar,bc->abrc", near, near).reshape(SIFT_CELLS**2, side**2).float()


BASELINE_SIDE = 16
MIN_GRAY_STD = 1.0
"""Minimum standard deviation in gray levels, so that flat patches are not amplified."""

PIXEL_CHUNK = 8192


def pixel_descriptor(patches: UInt8[Tensor, "n h w"]) -> Float[Tensor, "n 256"]:
    """Normalized pixels: patches downsampled to 16×16 by area, (x - mean) / max(std, 1).

    Mean and (population) standard deviation are over the 256 values of each patch. From 32×32,
    each value is the mean of 2×2 pixels; from 65×65, areas overlap by up to a pixel.

    Raises:
        UserError: if the patches are not at least 16×16.
    """
    if patches.ndim != 3 or min(patches.shape[1:]) < BASELINE_SIDE:
        raise UserError(f"patches must be (n, h, w), at least 16×16, got {tuple(patches.shape)}")
    return torch.cat([_normalized(chunk) for chunk in patches.split(PIXEL_CHUNK)])


def _normalized(patches: UInt8[Tensor, "n h w"]) -> Float[Tensor, "n 256"]:
    small = adaptive_avg_pool2d(patches.float()[:, None], BASELINE_SIDE).flatten(1)
    centered = small - small.mean(dim=1, keepdim=True)
    deviation = centered.square().mean(dim=1, keepdim=True).sqrt()
    return centered / deviation.clamp_min(MIN_GRAY_STD)
