"""Augmentation of training patches: parameters from NumPy, applied on the patches' device."""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hpsearch.config import Augmentation
from hpsearch.data.affine_jitter import Jitter, jitters
from hpsearch.shapes import Float, Int

NUM_ORIENTATIONS = 8
"""Number of flips and quarter turns: four rotations, each with and without a mirror."""
MAX_GRAY = 255.0


class AugmentationParams(NamedTuple):
    """Augmentation of each patch of one call or of several calls."""

    turn: Int[np.ndarray, "..."]
    """Quarter turns 0..3, plus 4 for a mirrored patch."""
    side: Float[np.ndarray, "..."]
    """Side of the crop as a share of the side of the patch, in (0, 1]."""
    corner: Float[np.ndarray, "... 2"]
    """Position of the crop, x and y in [0, 1]: 0 at the near border, 1 at the far one."""
    shift: Float[np.ndarray, "..."]
    """Shift of brightness in gray levels."""
    gain: Float[np.ndarray, "..."]
    jitter: Float[np.ndarray, "... 3 3"]
    """Affine map from [-1, 1]² to the part of the patch that is seen; identity without jitter."""


class Prepared(NamedTuple):
    """Augmentation parameters as tensors, which can be inputs of a CUDA graph."""

    turn: Int[Tensor, "..."]
    theta: Float[Tensor, "... 2 3"]
    """Affine map of crop and jitter."""
    shift: Float[Tensor, "..."]
    gain: Float[Tensor, "..."]


def sample_params(
    settings: Augmentation, labels: Int[np.ndarray, "calls n"], rng: np.random.Generator
) -> list[AugmentationParams]:
    """Sample parameters for each call of a batch; ``labels`` are the points of its patches.

    With turns by point, the patches of a point turn alike in all calls (anchor and positive).
    """
    match settings.turns:
        case "none":
            turn = np.zeros(labels.shape, np.int64)
        case "patch":
            turn = rng.integers(NUM_ORIENTATIONS, size=labels.shape)
        case "point":
            points, where = np.unique(labels, return_inverse=True)
            turn = rng.integers(NUM_ORIENTATIONS, size=len(points))[where].reshape(labels.shape)
    side = 1 - settings.crop * rng.random(labels.shape)
    corner = rng.random((*labels.shape, 2))
    shift = settings.brightness * rng.uniform(-1, 1, labels.shape)
    gain = np.exp(settings.contrast * rng.uniform(-1, 1, labels.shape))
    jitter = _sample_jitter(settings, labels.shape, rng)  # last, as it is newer than the others
    drawn = zip(turn, side, corner, shift, gain, jitter, strict=True)
    return [AugmentationParams(*call) for call in drawn]


def _sample_jitter(
    settings: Augmentation, shape: tuple[int, ...], rng: np.random.Generator
) -> Float[np.ndarray, "calls n 3 3"]:
    if not settings.is_affine:
        return np.broadcast_to(np.eye(3), (*shape, 3, 3))
    errors = Jitter(
        settings.rotation, settings.scale, settings.anisotropy, settings.shift, settings.shear
    )
    return jitters(int(np.prod(shape)), errors, rng).reshape(*shape, 3, 3)


def prepare(changes: AugmentationParams) -> Prepared:
    """Convert the parameters of one call to float32 and int64 tensors on the CPU."""
    theta = np.zeros((len(changes.side), 2, 3), np.float32)
    theta[:, 0, 0] = theta[:, 1, 1] = changes.side
    theta[:, :, 2] = (1 - changes.side[:, None]) * (2 * changes.corner - 1)
    theta = (theta @ changes.jitter).astype(np.float32)
    shift, gain = (a.astype(np.float32) for a in (changes.shift, changes.gain))
    return Prepared(*(torch.from_numpy(a) for a in (changes.turn, theta, shift, gain)))


def apply_augmentation(
    settings: Augmentation, patches: Float[Tensor, "n 1 s s"], params: AugmentationParams | Prepared
) -> Float[Tensor, "n 1 s s"]:
    """Augmented patches in 0..255; disabled augmentations cost nothing.

    Shapes do not depend on the sampled parameters, so an XLA device compiles this once.
    """
    if settings == Augmentation():
        return patches
    prepared = prepare(params) if isinstance(params, AugmentationParams) else params
    turn, theta, shift, gain = (a.to(patches.device) for a in prepared)
    if settings.turns != "none":
        patches = _apply_turn(patches, turn)
    if settings.crop or settings.is_affine:
        patches = _resample(patches, theta)
    if settings.brightness or settings.contrast:
        mean = patches.mean(dim=(2, 3), keepdim=True)
        gain, shift = (a[:, None, None, None] for a in (gain, shift))
        patches = ((patches - mean) * gain + mean + shift).clamp(0, MAX_GRAY)
    return patches


def _apply_turn(
    patches: Float[Tensor, "n 1 s s"], turn: Int[Tensor, " n"]
) -> Float[Tensor, "n 1 s s"]:
    """Turn patches exactly: one gather with the pixel order of each turn."""
    orders = _turn_orders(patches.shape[-1], patches.device)[turn]
    return patches.flatten(1).gather(1, orders).view_as(patches)


@cache
def _turn_orders(side: int, device: torch.device) -> Int[Tensor, "8 pixels"]:
    """Source pixel of each target pixel, by turn."""
    pixels = np.arange(side * side).reshape(side, side)
    turned = [np.rot90(p, k) for p in (pixels, pixels[:, ::-1]) for k in range(4)]
    return torch.from_numpy(np.stack([t.ravel() for t in turned])).to(device)


def _resample(
    patches: Float[Tensor, "n 1 s s"], theta: Float[Tensor, "n 2 3"]
) -> Float[Tensor, "n 1 s s"]:
    """Scale the parallelogram of an affine map to the full patch, bilinear.

    Outside a patch its border is repeated.
    """
    grid = functional.affine_grid(theta, list(patches.shape), align_corners=False)
    return functional.grid_sample(patches, grid, padding_mode="border", align_corners=False)
