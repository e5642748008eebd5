"""Random affine maps near the identity: the geometric error of a patch's detection."""

from typing import NamedTuple

import numpy as np

from hpsearch.shapes import Float


class Jitter(NamedTuple):
    """Standard deviations of the geometric jitter of a patch."""

    rotation: float
    """Standard deviation of the rotation, in degrees."""
    scale: float
    """Standard deviation of the log of the isotropic scale."""
    anisotropy: float
    """Standard deviation of the log of the stretch along a random axis."""
    shift: float
    """Standard deviation of the shift, in half-sides of the patch."""


def rotations(angle: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2 2"]:
    """Rotation matrices from x toward y, by angles in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def jitters(n: int, jitter: Jitter, rng: np.random.Generator) -> Float[np.ndarray, "n 3 3"]:
    """Random affine maps of [-1, 1]² near the identity."""
    normal = rng.standard_normal((5, n))
    turn = rotations(np.deg2rad(jitter.rotation) * normal[0])
    axis = rotations(rng.uniform(0, np.pi, n))
    stretch = jitter.anisotropy * normal[1]
    scale = jitter.scale * normal[2]
    sizes = np.exp(np.stack([scale + stretch, scale - stretch], -1))
    linear = turn @ (axis * sizes[:, None, :]) @ np.swapaxes(axis, 1, 2)
    return affine_maps(linear, jitter.shift * normal[3:].T)


def affine_maps(
    linear: Float[np.ndarray, "n 2 2"], xy: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 3 3"]:
    """Affine maps from their linear parts and shifts."""
    maps = np.zeros((len(xy), 3, 3))
    maps[:, :2, :2], maps[:, :2, 2], maps[:, 2, 2] = linear, xy, 1
    return maps
