"""Synthetic HPatches-like sequences from photographs."""

from collections.abc import Iterable, Iterator

import numpy as np
import scipy  # imports ndimage when it is first used
from PIL import Image
from pydantic import Field

from hpsearch.config.base import FrozenConfig
from hpsearch.data.affine_jitter import Jitter, affine_maps, jitters, rotations
from hpsearch.data.arrow_header import NoiseLevels
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.images import SOURCE_SIDE, add_noise, area_downsample
from hpsearch.data.photo_keypoints import HALF_SIDE_SIGMAS, Keypoints, detect, gaussian_blur
from hpsearch.errors import UserError
from hpsearch.patch_views import SIDE, VIEW_NAMES, VIEWS
from hpsearch.rng import rng_for
from hpsearch.shapes import Bool, Float, UInt8

UNIT_SQUARE = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]], float)
MAX_TILT_DEGREES = 55.0
"""Angle in degrees between the photograph and the camera of the hardest viewpoint target."""
CAMERA_DISTANCE = 2.0
"""Camera distance in longer sides of the photograph; smaller means stronger perspective."""


# Calibrated: median overlap 0.86 / 0.73 / 0.62 (HPatches documents 0.85 and 0.72), and RootSIFT's
# matching score on genuine HPatches pictures equals the published one.
JITTER_OF_LEVEL = {
    "e": Jitter(18, 0.08, 0.055, 0.055),
    "h": Jitter(27, 0.15, 0.10, 0.13),
    "t": Jitter(35, 0.23, 0.15, 0.20),
}


def squares(points: Keypoints) -> Float[np.ndarray, "n 3 3"]:
    """Affine maps from [-1, 1]² to the oriented patches of the keypoints."""
    linear = HALF_SIDE_SIGMAS * points.sigma[:, None, None] * rotations(points.angle)
    return affine_maps(linear, points.xy)


def inside(
    maps: Float[np.ndarray, "... 3 3"], width: int, height: int, *, margin: float
) -> Bool[np.ndarray, "..."]:
    """Mask of the patches of affine or projective maps whose corners lie inside a picture.

    Args:
        maps: maps from [-1, 1]² to the picture's pixels.
        width: width of the picture in pixels.
        height: height of the picture in pixels.
        margin: distance from the border, in pixels.
    """
    corners = np.einsum("...ij,kj->...ki", maps, UNIT_SQUARE)
    depth = corners[..., 2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        corners = corners[..., :2] / depth
    low, high = corners.min(-2), corners.max(-2)
    inner = (low >= margin).all(-1) & (high <= np.array([width, height]) - margin).all(-1)
    return inner & (depth > 0).all((-2, -1))


def viewpoint(
    width: int, height: int, *, severity: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "3 3"], tuple[int, int]]:
    """Homography from the photograph to an orbiting camera's picture, and that picture's size.

    ``severity`` is in (0, 1]. The canvas contains the whole photograph.
    """
    tilt = np.deg2rad(MAX_TILT_DEGREES * severity * rng.uniform(0.4, 1))
    roll = np.deg2rad((12 * severity + 3) * rng.standard_normal())
    zoom = 2 ** (severity * rng.uniform(-0.7, 0.5))
    side, up = rotations(np.array([rng.uniform(0, 2 * np.pi), roll]))
    distance = CAMERA_DISTANCE * max(width, height)
    # Columns are the images of the plane's x and y directions; the third row is depth.
    plane = np.vstack([up @ side @ np.diag([1, np.cos(tilt)]) @ side.T, np.sin(tilt) * side[:, 1]])
    camera = np.diag([zoom * distance, zoom * distance, 1]) @ np.column_stack(
        [plane, [0, 0, distance]]
    )
    h = camera @ _translation(-width / 2, -height / 2)
    corners = project(h, np.array([[0, 0], [width, 0], [width, height], [0, height]], float))
    low, high = corners.min(0), corners.max(0)
    size = np.ceil(high - low).astype(int)
    h = _translation(*-low) @ h
    return h / h[2, 2], (int(size[0]), int(size[1]))


def project(h: Float[np.ndarray, "3 3"], xy: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    mapped = np.column_stack([xy, np.ones(len(xy))]) @ h.T
    return mapped[:, :2] / mapped[:, 2:]


def magnification(maps: Float[np.ndarray, "n 3 3"]) -> Float[np.ndarray, " n"]:
    """Pixels per unit of the patch at its center: square root of the Jacobian's determinant."""
    m = maps / maps[:, 2:, 2:]
    jacobian = m[:, :2, :2] - m[:, :2, 2:] * m[:, 2:, :2]
    return np.sqrt(np.abs(np.linalg.det(jacobian)))


def _translation(x: float, y: float) -> Float[np.ndarray, "3 3"]:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], float)


LEVEL_STEP = np.sqrt(2)
BILINEAR = Image.Resampling.BILINEAR


def viewpoint_target(
    photo: UInt8[np.ndarray, "h w"], *, severity: float, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h2 w2"], Float[np.ndarray, "3 3"]]:
    """Photograph from another viewpoint, and the homography from the photograph to it."""
    height, width = photo.shape
    h, size = viewpoint(width, height, severity=severity, rng=rng)
    moved = Image.fromarray(photo).transform(
        size, Image.Transform.PERSPECTIVE, _coefficients(h), Image.Resampling.BICUBIC
    )
    gray = 255 * (np.asarray(moved, np.float32) / 255) ** (2 ** rng.uniform(-0.3, 0.3))
    gray = rng.uniform(0.85, 1.15) * gaussian_blur(gray, rng.uniform(0.2, 0.8))
    gray += rng.uniform(1, 3) * rng.standard_normal(gray.shape, np.float32)
    return _to_uint8(gray), h


def illumination_target(
    photo: UInt8[np.ndarray, "h w"], *, severity: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w"]:
    """Photograph under another illumination, from the same viewpoint.

    Gamma, a smooth field, shadows with soft edges, an exposure that may clip, slight blur, and
    noise that grows with intensity.
    """
    light = (photo.astype(np.float32) / 255) ** (2 ** (1.2 * severity * rng.uniform(-1, 1)))
    light *= _smooth_field(photo.shape, severity, rng)
    shadows = [_shadow(photo.shape, severity, rng) for _ in range(rng.integers(1, 5))]
    light *= np.minimum.reduce(shadows)  # overlapping shadows darken only once
    exposure = rng.uniform(0.85, 1.0) / np.quantile(light, rng.uniform(0.93, 0.999))
    light = gaussian_blur(light * exposure, rng.uniform(0.1, 1.1) * severity)
    spread = np.sqrt(1 + 6 * np.clip(light, 0, 1)) * rng.uniform(0.5, 1.5)
    return _to_uint8(255 * light + spread * rng.standard_normal(light.shape, np.float32))


def extract_patches(
    picture: UInt8[np.ndarray, "h w"], maps: Float[np.ndarray, "n 3 3"]
) -> UInt8[np.ndarray, "n 65 65"]:
    """Extract patches of a picture, given the maps from [-1, 1]² to its pixels.

    Bilinear interpolation in copies blurred in steps of √2 so that large patches do not alias.
    """
    s = 2 / SOURCE_SIDE
    maps = maps @ np.array([[s, 0, -1], [0, s, -1], [0, 0, 1]])
    step = magnification(maps @ np.array([[1, 0, 32.5], [0, 1, 32.5], [0, 0, 1]]))
    level = np.ceil(np.log(np.maximum(step, 1)) / np.log(LEVEL_STEP) - 0.5).clip(0).astype(int)
    patches = np.empty((len(maps), SOURCE_SIDE, SOURCE_SIDE), np.uint8)
    coefficients = (maps / maps[:, 2:, 2:]).reshape(-1, 9)[:, :8]
    for k in np.unique(level):
        source = _blurred(picture, LEVEL_STEP**k)
        for i in np.nonzero(level == k)[0]:
            size, numbers = (SOURCE_SIDE, SOURCE_SIDE), coefficients[i].tolist()
            method = Image.Transform.PERSPECTIVE
            if not any(numbers[6:]):  # the same pixels without a division for each: twice as fast
                method, numbers = Image.Transform.AFFINE, numbers[:6]
            patches[i] = np.asarray(source.transform(size, method, numbers, BILINEAR))
    return patches


def _blurred(picture: UInt8[np.ndarray, "h w"], step: float) -> Image.Image:
    """Picture blurred for sampling at intervals of ``step`` pixels."""
    if step <= 1:
        return Image.fromarray(picture)
    blur = 0.5 * np.sqrt(step**2 - 1)
    return Image.fromarray(_to_uint8(gaussian_blur(picture.astype(np.float32), blur)))


def _coefficients(h: Float[np.ndarray, "3 3"]) -> list[float]:
    """Coefficients for Pillow of the inverse map, from the new picture to the old one."""
    back = np.linalg.inv(h)
    return (back / back[2, 2]).ravel()[:8].tolist()


def _smooth_field(
    shape: tuple[int, ...], severity: float, rng: np.random.Generator
) -> Float[np.ndarray, "h w"]:
    coarse = rng.standard_normal((4, 4)).astype(np.float32)
    zoom = [n / 4 for n in shape]
    field = np.asarray(scipy.ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True))
    return np.exp2(0.6 * severity * field)


def _shadow(
    shape: tuple[int, ...], severity: float, rng: np.random.Generator
) -> Float[np.ndarray, "h w"]:
    """Multiplicative mask of a dark band across the picture."""
    y, x = np.indices(shape, np.float32) / max(shape)
    angle = rng.uniform(0, np.pi)
    across = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) - rng.uniform(-0.2, 1.0)
    width, soft = rng.uniform(0.05, 0.3), rng.uniform(0.004, 0.05)
    depth = severity * (1 - rng.uniform(0.25, 0.7))
    return 1 - depth / (1 + np.exp(np.clip((np.abs(across) - width) / soft, -30, 30)))


def _to_uint8(gray: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8)


NUM_PHOTO_TARGETS = 5
BORDER_PIXELS = 3.0
"""Distance in pixels of a patch from the border, where warps and blurs are invalid."""
MIN_SEVERITY = 0.35
"""Severity of the first target; the last target has 1."""


class PhotoSettings(FrozenConfig):
    """Settings of the synthesis of patches from photographs."""

    points: int = Field(default=300, ge=1, le=2000)
    """Maximum number of points of a photograph."""
    noise: NoiseLevels = NoiseLevels()
    seed: int = Field(default=0, ge=0)


def photo_sequence(
    photo: UInt8[np.ndarray, "h w"], *, name: str, settings: PhotoSettings
) -> SequencePatches:
    """Patches of one gray photograph; a pure function of its arguments.

    Raises:
        UserError: if no patch fits into the photograph.

    """
    found = detect(photo.astype(np.float32), limit=2 * settings.points)
    maps = view_maps(found, name, settings.seed)
    height, width = photo.shape
    fits = inside(maps, width, height, margin=BORDER_PIXELS).all(1)
    maps = maps[fits][: settings.points]
    if not len(maps):
        raise UserError(f"no patch fits into {name!r} ({width}×{height}); give a larger picture")
    targets = _target_images(photo, name, settings.seed)
    return cut_views(photo, targets, maps, name=name, settings=settings)


def cut_views(
    reference: UInt8[np.ndarray, "h w"],
    targets: Iterable[tuple[UInt8[np.ndarray, "h2 w2"], Float[np.ndarray, "3 3"]]],
    maps: Float[np.ndarray, "n 16 3 3"],
    *,
    name: str,
    settings: PhotoSettings,
) -> SequencePatches:
    """Cut the 16 views of each point, and add noise.

    Args:
        reference: gray picture in which the points were detected.
        targets: the five other pictures, each with its homography from the reference.
        maps: map of each view from [-1, 1]² to the reference's pixels.
        name: name of the sequence.
        settings: noise levels and seed.
    """
    clean = np.empty((len(maps), VIEWS, SIDE, SIDE), np.uint8)
    clean[:, 0] = area_downsample(extract_patches(reference, maps[:, 0]))
    for k, (target, homography) in enumerate(targets, start=1):
        views = [VIEW_NAMES.index(f"{level}{k}") for level in JITTER_OF_LEVEL]
        found = extract_patches(target, (homography @ maps[:, views]).reshape(-1, 3, 3))
        clean[:, views] = area_downsample(found).reshape(-1, len(views), SIDE, SIDE)
    noisy = add_noise(clean, name=name, levels=settings.noise, seed=settings.seed)
    return SequencePatches(name, clean, noisy)


def view_maps(points: Keypoints, name: str, seed: int) -> Float[np.ndarray, "n 16 3 3"]:
    """Map of each view from [-1, 1]² to the jittered patch in the reference."""
    n = len(points.sigma)
    upright = squares(points)
    maps = [upright]
    for view, view_name in enumerate(VIEW_NAMES[1:], start=1):
        rng = rng_for(seed, f"jitter {name}", view)
        maps.append(upright @ jitters(n, JITTER_OF_LEVEL[view_name[0]], rng))
    return np.stack(maps, axis=1)


def _target_images(
    photo: UInt8[np.ndarray, "h w"], name: str, seed: int
) -> Iterator[tuple[UInt8[np.ndarray, "h2 w2"], Float[np.ndarray, "3 3"]]]:
    for k, severity in enumerate(np.linspace(MIN_SEVERITY, 1, NUM_PHOTO_TARGETS), start=1):
        rng = rng_for(seed, f"target {name}", k)
        if name.startswith("v_"):
            yield viewpoint_target(photo, severity=float(severity), rng=rng)
        else:
            yield illumination_target(photo, severity=float(severity), rng=rng), np.eye(3)
