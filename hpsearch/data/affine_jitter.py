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
    shear: float = 0.0
    """Standard deviation of the shear, x by y, along a random axis."""


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
    if jitter.shear:  # last, as it is newer than the others
        linear = linear @ _shears(jitter.shear * rng.standard_normal(n), rng.uniform(0, np.pi, n))
    return affine_maps(linear, jitter.shift * normal[3:].T)


def _shears(
    amount: Float[np.ndarray, " n"], angle: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 2 2"]:
    """Maps that move points along an axis in proportion to their distance from it."""
    maps = np.zeros((len(amount), 2, 2))
    maps[:, 0, 0], maps[:, 1, 1], maps[:, 0, 1] = 1, 1, amount
    axis = rotations(angle)
    return axis @ maps @ np.swapaxes(axis, 1, 2)


def affine_maps(
    linear: Float[np.ndarray, "n 2 2"], xy: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 3 3"]:
    """Affine maps from their linear parts and shifts."""
    maps = np.zeros((len(xy), 3, 3))
    maps[:, :2, :2], maps[:, :2, 2], maps[:, 2, 2] = linear, xy, 1
    return maps
