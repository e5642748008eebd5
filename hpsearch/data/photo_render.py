"""Pictures of pictures: what another camera or another light makes of a photograph."""

import numpy as np
from PIL import Image
from scipy import ndimage

from hpsearch.data.area import SOURCE_SIDE
from hpsearch.data.photo_geometry import magnification, viewpoint
from hpsearch.shapes import Float, UInt8

LEVEL_STEP = np.sqrt(2)


def viewpoint_target(
    photo: UInt8[np.ndarray, "h w"], *, severity: float, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "h2 w2"], Float[np.ndarray, "3 3"]]:
    """The photograph from elsewhere, and the homography from the photograph to it."""
    height, width = photo.shape
    h, size = viewpoint(width, height, severity=severity, rng=rng)
    moved = Image.fromarray(photo).transform(
        size, Image.Transform.PERSPECTIVE, _coefficients(h), Image.Resampling.BICUBIC
    )
    grey = 255 * (np.asarray(moved, np.float32) / 255) ** (2 ** rng.uniform(-0.3, 0.3))
    grey = rng.uniform(0.85, 1.15) * ndimage.gaussian_filter(grey, rng.uniform(0.2, 0.8))
    grey += rng.uniform(1, 3) * rng.standard_normal(grey.shape, np.float32)
    return _to_uint8(grey), h


def illumination_target(
    photo: UInt8[np.ndarray, "h w"], *, severity: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w"]:
    """The photograph in another light, from the same place.

    Gamma, a smooth field, shadows with soft edges, an exposure that may clip, a little blur, and
    noise that grows with the light.
    """
    light = (photo.astype(np.float32) / 255) ** (2 ** (1.2 * severity * rng.uniform(-1, 1)))
    light *= _smooth_field(photo.shape, severity, rng)
    shadows = [_shadow(photo.shape, severity, rng) for _ in range(rng.integers(1, 5))]
    light *= np.minimum.reduce(shadows)  # where two meet, the same light is missing once
    exposure = rng.uniform(0.85, 1.0) / np.quantile(light, rng.uniform(0.93, 0.999))
    light = ndimage.gaussian_filter(light * exposure, rng.uniform(0.1, 1.1) * severity)
    spread = np.sqrt(1 + 6 * np.clip(light, 0, 1)) * rng.uniform(0.5, 1.5)
    return _to_uint8(255 * light + spread * rng.standard_normal(light.shape, np.float32))


def cut(
    picture: UInt8[np.ndarray, "h w"], maps: Float[np.ndarray, "n 3 3"]
) -> UInt8[np.ndarray, "n 65 65"]:
    """Patches of a picture, given the maps from [-1, 1]² to its pixels.

    Bilinear, from copies blurred in steps of √2 so that large patches do not alias.
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
            patch = source.transform(
                (SOURCE_SIDE, SOURCE_SIDE),
                Image.Transform.PERSPECTIVE,
                coefficients[i].tolist(),
                Image.Resampling.BILINEAR,
            )
            patches[i] = np.asarray(patch)
    return patches


def _blurred(picture: UInt8[np.ndarray, "h w"], step: float) -> Image.Image:
    """The picture, blurred for samples that are ``step`` pixels apart."""
    if step <= 1:
        return Image.fromarray(picture)
    blur = 0.5 * np.sqrt(step**2 - 1)
    return Image.fromarray(_to_uint8(ndimage.gaussian_filter(picture.astype(np.float32), blur)))


def _coefficients(h: Float[np.ndarray, "3 3"]) -> list[float]:
    """Pillow asks for the map from the new picture back to the old one."""
    back = np.linalg.inv(h)
    return (back / back[2, 2]).ravel()[:8].tolist()


def _smooth_field(
    shape: tuple[int, ...], severity: float, rng: np.random.Generator
) -> Float[np.ndarray, "h w"]:
    coarse = rng.standard_normal((4, 4)).astype(np.float32)
    zoom = [n / 4 for n in shape]
    field = np.asarray(ndimage.zoom(coarse, zoom, order=3, mode="nearest", grid_mode=True))
    return np.exp2(0.6 * severity * field)


def _shadow(
    shape: tuple[int, ...], severity: float, rng: np.random.Generator
) -> Float[np.ndarray, "h w"]:
    """A band of less light across the picture."""
    y, x = np.indices(shape, np.float32) / max(shape)
    angle = rng.uniform(0, np.pi)
    across = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) - rng.uniform(-0.2, 1.0)
    width, soft = rng.uniform(0.05, 0.3), rng.uniform(0.004, 0.05)
    depth = severity * (1 - rng.uniform(0.25, 0.7))
    return 1 - depth / (1 + np.exp(np.clip((np.abs(across) - width) / soft, -30, 30)))


def _to_uint8(grey: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
