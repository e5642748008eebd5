"""Views that a detector makes: points of a photograph that are detected again in warps of it.

Errors of place, scale and angle are a detector's own, and no chosen jitter. A view of a point is a
detection that lies on it, with the scale and the angle that the homography asks for, so that points
have as many views as there are such detections.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from hpsearch.config.base import FrozenConfig
from hpsearch.data.arrow_header import NoiseLevels, PointViews
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.images import add_mixed_noise, area_downsample
from hpsearch.data.photo_keypoints import Keypoints, detect
from hpsearch.data.photo_synthesis import (
    BORDER_PIXELS,
    MAX_TILT_DEGREES,
    MIN_SEVERITY,
    extract_patches,
    illumination_target,
    inside,
    project,
    squares,
    viewpoint_target,
)
from hpsearch.errors import UserError
from hpsearch.rng import rng_for
from hpsearch.shapes import Bool, Float, Int, UInt8

MAX_SCALE_RATIO = np.sqrt(2)
"""Largest ratio of the scales of consistent points."""
MAX_ANGLE = np.deg2rad(25)
"""Largest difference of the angles of consistent points, in radians."""
MIN_PLACE_PIXELS = 3.0
"""Distance in pixels that is always accepted, as in an evaluation on pairs of pictures."""
PEAK_SHARE = 0.8
"""Share of the highest peak of a warp's histogram of orientations that gives another angle."""
MIN_VIEWS = 2


class DetectedViewSettings(FrozenConfig):
    """Settings of views that a detector makes.

    Example:
        >>> DetectedViewSettings(tilt=70).warps
        14
    """

    points: int = Field(default=300, ge=1, le=2000)
    """Maximum number of points of a photograph; those that are not found again are left out."""
    warps: int = Field(default=14, ge=1, le=100)
    """Number of warps of a photograph; every second one has another illumination, too."""
    tilt: float = Field(default=65.0, gt=0, le=75)
    """Largest angle in degrees between the photograph and the camera; the 16 views of the protocol
    have 55. Rotation and change of scale grow with it."""
    place_share: float = Field(default=1.0, gt=0, le=2)
    """Accepted distance from the true place in units of σ, a fifth of half the patch's side; 3
    pixels if that is more."""
    noise: NoiseLevels = NoiseLevels()
    """Noise that is added; each patch draws the level of one of HPatches' 16 views."""
    seed: int = Field(default=0, ge=0)


def detected_sequence(
    photo: UInt8[np.ndarray, "h w"], *, name: str, settings: DetectedViewSettings
) -> SequencePatches:
    """Patches of one gray photograph; a pure function of its arguments.

    The first view of a point is its detection in the photograph, the others those in the warps.

    Raises:
        UserError: if no point is found again in a warp.
    """
    points = _points_inside(photo, settings.points)
    owners = [np.arange(len(points.sigma))]
    patches = [area_downsample(extract_patches(photo, squares(points)))]
    for picture, homography in warped_pictures(photo, name, settings):
        found = _detections_inside(picture, homography, photo.shape, 2 * settings.points)
        point, detection = match_detections(points, found, homography, settings.place_share)
        owners.append(point)
        maps = squares(select_keypoints(found, detection))
        patches.append(area_downsample(extract_patches(picture, maps)))
    owner, clean = np.concatenate(owners), np.concatenate(patches)
    counts = np.bincount(owner, minlength=len(points.sigma))
    kept = np.flatnonzero(counts[owner] >= MIN_VIEWS)
    if not len(kept):
        height, width = photo.shape
        raise UserError(
            f"no point of {name!r} ({width}×{height}) is found again in another view; give a "
            "picture with more structure"
        )
    clean = clean[kept[np.argsort(owner[kept], kind="stable")]]
    rng = rng_for(settings.seed, f"noise {name}", 0)
    noisy = add_mixed_noise(clean, levels=settings.noise, rng=rng)
    return SequencePatches(name, clean, noisy, PointViews(counts[counts >= MIN_VIEWS]))


def warped_pictures(
    photo: UInt8[np.ndarray, "h w"], name: str, settings: DetectedViewSettings
) -> Iterator[tuple[UInt8[np.ndarray, "h2 w2"], Float[np.ndarray, "3 3"]]]:
    """Yield warps with blur, exposure and noise, each with its homography from the photograph."""
    furthest = settings.tilt / MAX_TILT_DEGREES
    severities = np.linspace(MIN_SEVERITY * furthest, furthest, settings.warps)
    for k, severity in enumerate(map(float, severities)):
        rng = rng_for(settings.seed, f"warp {name}", k)
        lit = illumination_target(photo, severity=min(severity, 1), rng=rng) if k % 2 else photo
        yield viewpoint_target(lit, severity=severity, rng=rng)


def match_detections(
    points: Keypoints,
    found: Keypoints,
    homography: Float[np.ndarray, "3 3"],
    place_share: float,
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Index of each point that is detected again, and of its detection; each occurs once.

    The detection differs least from what the homography asks for, and the point from its.

    Args:
        points: keypoints of the photograph.
        found: keypoints of another picture.
        homography: from the photograph to that picture.
        place_share: accepted distance in units of the expected σ, at least 3 pixels.
    """
    if not (len(points.sigma) and len(found.sigma)):
        return np.empty(0, int), np.empty(0, int)
    moved = moved_keypoints(points, homography)
    apart = np.linalg.norm(moved.xy[:, None] - found.xy, axis=2)
    place = apart / np.maximum(place_share * moved.sigma, MIN_PLACE_PIXELS)[:, None]
    scale, turn = scale_and_angle_errors(moved, found)
    difference = place**2 + scale**2 + turn**2
    fits = (place <= 1) & within_limits(scale, turn)
    difference = np.where(fits, difference, np.inf)
    detection, rows = difference.argmin(1), np.arange(len(points.sigma))
    chosen = fits[rows, detection] & (difference.argmin(0)[detection] == rows)
    return rows[chosen], detection[chosen]


def moved_keypoints(points: Keypoints, homography: Float[np.ndarray, "3 3"]) -> Keypoints:
    """Place, scale and angle that a homography's Jacobian asks for in the other picture."""
    w = np.column_stack([points.xy, np.ones(len(points.xy))]) @ homography.T
    jacobian = (homography[:2, :2] - (w[:, :2] / w[:, 2:])[:, :, None] * homography[2, :2]) / w[
        :, 2, None, None
    ]
    scale = points.sigma * np.sqrt(np.abs(np.linalg.det(jacobian)))
    direction = np.stack([np.cos(points.angle), np.sin(points.angle)], axis=1)
    x, y = np.einsum("nij,nj->in", jacobian, direction)
    return Keypoints(project(homography, points.xy), scale, np.arctan2(y, x))


def scale_and_angle_errors(
    expected: Keypoints, found: Keypoints
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"]]:
    """Differences of all pairs in scale and in angle, in units of the largest consistent ones."""
    turn = expected.angle[:, None] - found.angle
    turn = np.abs((turn + np.pi) % (2 * np.pi) - np.pi)
    ratio = np.abs(np.log(expected.sigma[:, None] / found.sigma))
    return ratio / np.log(MAX_SCALE_RATIO), turn / MAX_ANGLE


def within_limits(
    scale: Float[np.ndarray, "n m"], turn: Float[np.ndarray, "n m"]
) -> Bool[np.ndarray, "n m"]:
    """Mask of the errors in scale and angle that consistent points may have."""
    return (scale <= 1 + 1e-12) & (turn <= 1)


def select_keypoints(points: Keypoints, rows: np.ndarray) -> Keypoints:
    """Keypoints at some rows, or of a mask."""
    return Keypoints(*(values[rows] for values in points))


def _points_inside(photo: UInt8[np.ndarray, "h w"], limit: int) -> Keypoints:
    found = _detections_inside(photo, np.eye(3), photo.shape, 2 * limit, peak_share=1.0)
    return select_keypoints(found, np.arange(min(limit, len(found.sigma))))


def _detections_inside(
    picture: UInt8[np.ndarray, "h2 w2"],
    homography: Float[np.ndarray, "3 3"],
    shape: tuple[int, ...],
    limit: int,
    *,
    peak_share: float = PEAK_SHARE,
) -> Keypoints:
    """Keypoints of a warp whose patches lie inside the photograph, of height and width ``shape``.

    Elsewhere the warp is black.
    """
    found = detect(picture.astype(np.float32), limit=limit, peak_share=peak_share)
    height, width = shape
    back = np.linalg.inv(homography) @ squares(found)
    return select_keypoints(found, inside(back, width, height, margin=BORDER_PIXELS))
