"""Squares and cameras: jitter of patches, homographies of viewpoint targets.

All maps are 3×3 and act on continuous pixel coordinates (x, y, 1); pixel i covers [i, i + 1]. A
patch is the image of the square [-1, 1]².
"""

from typing import NamedTuple

import numpy as np

from hpsearch.data.photo_detect import HALF_SIDE, Keypoints
from hpsearch.shapes import Bool, Float

SQUARE = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], float)
MAX_TILT = 55.0
"""Degrees between the photograph and the camera of the hardest viewpoint target."""
CAMERA_DISTANCE = 2.0
"""In longer sides of the photograph; nearer would bend the perspective more."""


class Jitter(NamedTuple):
    """Standard deviations of the disturbance of a patch."""

    rotation: float
    """Degrees."""
    scale: float
    """Of the log of the isotropic scale."""
    anisotropy: float
    """Of the log of the stretch along a random axis."""
    shift: float
    """Half-sides of the patch."""


# Calibrated: median overlap 0.86 / 0.73 / 0.62 (HPatches documents 0.85 and 0.72), and RootSIFT's
# matching score on genuine HPatches pictures meets the published one.
JITTER = {
    "e": Jitter(18, 0.08, 0.055, 0.055),
    "h": Jitter(27, 0.15, 0.10, 0.13),
    "t": Jitter(35, 0.23, 0.15, 0.20),
}


def rotations(angle: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 2 2"]:
    """Rotations from x towards y, by angles in radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def squares(points: Keypoints) -> Float[np.ndarray, "n 3 3"]:
    """Maps from [-1, 1]² to the upright patches of the keypoints."""
    linear = HALF_SIDE * points.sigma[:, None, None] * rotations(points.angle)
    return _affine(linear, points.xy)


def jitters(n: int, jitter: Jitter, rng: np.random.Generator) -> Float[np.ndarray, "n 3 3"]:
    """Random affine maps of [-1, 1]² near the identity."""
    normal = rng.standard_normal((5, n))
    turn = rotations(np.deg2rad(jitter.rotation) * normal[0])
    axis = rotations(rng.uniform(0, np.pi, n))
    stretch = jitter.anisotropy * normal[1]
    scale = jitter.scale * normal[2]
    sizes = np.exp(np.stack([scale + stretch, scale - stretch], -1))
    linear = turn @ (axis * sizes[:, None, :]) @ np.swapaxes(axis, 1, 2)
    return _affine(linear, jitter.shift * normal[3:].T)


def inside(
    maps: Float[np.ndarray, "... 3 3"], width: int, height: int, *, margin: float
) -> Bool[np.ndarray, "..."]:
    """Whether the patches of affine maps keep their corners off the border of a picture."""
    corners = np.einsum("...ij,kj->...ki", maps, SQUARE)[..., :2]
    low, high = corners.min(-2), corners.max(-2)
    return (low >= margin).all(-1) & (high <= np.array([width, height]) - margin).all(-1)


def viewpoint(
    width: int, height: int, *, severity: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
    """Homography to a picture of the photograph by an orbiting camera, and that picture's size.

    ``severity`` in (0, 1]. The canvas is as large as it takes to lose nothing.
    """
    tilt = np.deg2rad(MAX_TILT * severity * rng.uniform(0.4, 1))
    roll = np.deg2rad((12 * severity + 3) * rng.standard_normal())
    zoom = 2 ** (severity * rng.uniform(-0.7, 0.5))
    side, up = rotations(np.array([rng.uniform(0, 2 * np.pi), roll]))
    distance = CAMERA_DISTANCE * max(width, height)
    # Columns are the images of the plane's x and y directions; the third row is depth.
    plane = np.vstack([up @ side @ np.diag([1, np.cos(tilt)]) @ side.T, np.sin(tilt) * side[:, 1]])
    camera = np.diag([zoom * distance, zoom * distance, 1]) @ np.column_stack(
        [plane, [0, 0, distance]]
    )
    h = camera @ _shift(-width / 2, -height / 2)
    corners = project(h, np.array([[0, 0], [width, 0], [width, height], [0, height]], float))
    low, high = corners.min(0), corners.max(0)
    size = np.ceil(high - low).astype(int)
    h = _shift(*-low) @ h
    return h / h[2, 2], (int(size[0]), int(size[1]))


def project(h: Float[np.ndarray, "3 3"], xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    mapped = np.column_stack([xy, np.ones(len(xy))]) @ h.T
    return mapped[:, :2] / mapped[:, 2:]


def magnification(maps: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
    """Pixels a unit of the patch at its centre: the root of the Jacobian's determinant."""
    m = maps / maps[:, 2:, 2:]
    jacobian = m[:, :2, :2] - m[:, :2, 2:] * m[:, 2:, :2]
    return np.sqrt(np.abs(np.linalg.det(jacobian)))


def _affine(linear: Float[np.ndarray, "n 2 2"], xy: Float[np.ndarray, "n 2"]) -> np.ndarray:
    maps = np.zeros((len(xy), 3, 3))
    maps[:, :2, :2], maps[:, :2, 2], maps[:, 2, 2] = linear, xy, 1
    return maps


def _shift(x: float, y: float) -> Float[np.ndarray, "3 3"]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)
