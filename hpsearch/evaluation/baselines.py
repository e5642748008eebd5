"""Descriptors without training: RootSIFT and normalized pixels."""

import numpy as np
import torch
from skimage.feature import SIFT
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from hpsearch.errors import UserError
from hpsearch.shapes import Float, UInt8

SIFT_GRID = 16
"""Patches per side of the picture that is described in one call."""

SIFT_MARGIN = 8
"""Border of repeated edge pixels of each patch, so that smoothing does not mix neighbors."""


def sift(patches: UInt8[np.ndarray, "n h h"]) -> UInt8[np.ndarray, "n 128"]:
    """SIFT descriptor of each patch: keypoint at its center, upright, as wide as the patch.

    Patches are assumed to be in their dominant orientation, as in HPatches. A flat patch gives
    zeros.

    Raises:
        UserError: if the patches are not square.
    """
    if patches.ndim != 3 or patches.shape[1] != patches.shape[2]:
        raise UserError(f"patches must be (n, side, side), got {patches.shape}")
    if not len(patches):
        return np.empty((0, 128), np.uint8)
    chunks = (patches[i : i + SIFT_GRID**2] for i in range(0, len(patches), SIFT_GRID**2))
    return np.concatenate([_compute_sift(chunk) for chunk in chunks])


def root_sift(patches: UInt8[np.ndarray, "n h h"]) -> Float[np.ndarray, "n 128"]:
    """RootSIFT: square root of the SIFT descriptor divided by its sum; unit L2 norm, or zeros."""
    described = sift(patches).astype(np.float32)
    return np.sqrt(described / np.maximum(described.sum(axis=1, keepdims=True), 1))


def _compute_sift(patches: UInt8[np.ndarray, "n h h"]) -> UInt8[np.ndarray, "n 128"]:
    side = patches.shape[1]
    cell = side + 2 * SIFT_MARGIN
    row, column = np.divmod(np.arange(len(patches)), SIFT_GRID)
    picture = np.zeros(((row[-1] + 1) * cell, SIFT_GRID * cell), np.float32)
    around = ((0, 0), (SIFT_MARGIN, SIFT_MARGIN), (SIFT_MARGIN, SIFT_MARGIN))
    for patch, r, c in zip(np.pad(patches, around, mode="edge"), row, column, strict=True):
        picture[r * cell : (r + 1) * cell, c * cell : (c + 1) * cell] = patch / np.float32(255)
    extractor = SIFT(upsampling=1, n_octaves=1, n_scales=1)
    center = SIFT_MARGIN + (side - 1) / 2
    extractor.positions = np.stack([row * cell + center, column * cell + center], axis=1)
    # SIFT's window reaches λ (1 + 1/n_hist) σ to each side of the keypoint
    sigma = side / 2 / (extractor.lambda_descr * (1 + 1 / extractor.n_hist))
    extractor.sigmas = np.full(len(patches), sigma)
    extractor.scales = np.zeros(len(patches), int)
    extractor.octaves = np.zeros(len(patches), int)
    extractor.orientations = np.zeros(len(patches))
    with np.errstate(invalid="ignore"):  # 0/0 for a flat patch, which is set to zero below
        extractor.extract(picture)
    assert extractor.descriptors is not None
    flat = patches.min(axis=(1, 2)) == patches.max(axis=(1, 2))
    return np.where(flat[:, None], 0, extractor.descriptors).astype(np.uint8)


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
