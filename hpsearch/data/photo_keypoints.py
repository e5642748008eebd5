"""Keypoint detection: three detectors in one scale space, overlap removal, orientation.

Source: the extraction that HPatches describes (Balntas et al., CVPR 2017): Hessian, Harris and
difference-of-Gaussians points, clusters of more than half overlap reduced to one, one dominant
orientation (Lowe, IJCV 2004). Coordinates are continuous: pixel i covers [i, i + 1].
"""

import importlib.util
from typing import Any, NamedTuple

import numpy as np

from hpsearch.errors import UserError
from hpsearch.shapes import Bool, Float, Int, UInt8

BASE_SIGMA = 1.6
INPUT_BLUR = 0.5  # assumed blur of the camera (Lowe 2004)
LEVELS_PER_OCTAVE = 3
EDGE_RATIO = 10.0
HARRIS_K = 0.05
HARRIS_WINDOW = 1.4
HALF_SIDE_SIGMAS = 5.0
"""Half the side of a patch in units of the keypoint's σ, measured on HPatches strips."""
MAX_SIDE_SHARE = 0.8
"""Largest side of a patch, as a share of the photograph's shorter side."""
BORDER_SCALE = 1.5
"""Required neighborhood inside the photograph, in half-sides of the patch."""
MAX_OVERLAP = 0.5
MIN_RESPONSE = 1e-7
BLUR_ROWS = 48
"""Number of rows that are blurred at once."""
MAX_CANDIDATES = 3000
"""Number of candidates kept of each detector; many more than requested patches."""


class Keypoints(NamedTuple):
    """Keypoints in order of preference; xy and sigma in pixels, angle in radians (x toward y)."""

    xy: Float[np.ndarray, "n 2"]
    sigma: Float[np.ndarray, " n"]
    angle: Float[np.ndarray, " n"]


class Octave(NamedTuple):
    """Octave of a scale space: levels at σ = 1.6·2^(k/3), k = -1..3, in pixels of this octave."""

    levels: Float[np.ndarray, "5 h w"]
    pixel: int
    """Size of this octave's pixels in pixels of the photograph."""


class _Candidates(NamedTuple):
    octave: Int[np.ndarray, " n"]
    level: Int[np.ndarray, " n"]
    yx: Float[np.ndarray, "n 2"]
    """Coordinates in pixels of the octave, at pixel centers."""
    sigma: Float[np.ndarray, " n"]
    """Scale σ in pixels of the octave."""
    strength: Float[np.ndarray, " n"]


def detect(image: Float[np.ndarray, "h w"], *, limit: int, peak_share: float = 1.0) -> Keypoints:
    """Detect up to ``limit`` points in a picture with gray levels in 0..255.

    Args:
        image: the picture.
        limit: largest number of points.
        peak_share: a point becomes a keypoint for each peak of its histogram of orientations that
            reaches this share of the highest; SIFT takes 0.8, and 1 gives one keypoint a point.
    """
    octaves = scale_space(image / 255)
    if not octaves:  # the picture is smaller than the smallest patch
        return Keypoints(np.empty((0, 2)), np.empty(0), np.empty(0))
    ranked = _interleave([_strongest(octaves, kind, image.shape) for kind in range(3)])
    pixel = np.array([o.pixel for o in octaves])[ranked.octave]
    xy = ranked.yx[:, ::-1] * pixel[:, None] + 0.5
    sigma = ranked.sigma * pixel
    kept = drop_overlaps(xy, HALF_SIDE_SIGMAS * sigma, limit=limit)
    point, angle = _orientations(octaves, _Candidates(*(a[kept] for a in ranked)), peak_share)
    return Keypoints(xy[kept][point], sigma[kept][point], angle)


def detect_sift(gray: UInt8[np.ndarray, "h w"], *, limit: int) -> Keypoints:
    """Keypoints of OpenCV's SIFT detector, strongest first; some points have several angles.

    Raises:
        UserError: if OpenCV is not installed.
    """
    if not has_opencv():
        raise UserError(
            "OpenCV is not installed; install opencv-python-headless, or take another detector"
        )
    import cv2

    found = sorted(
        cv2.SIFT_create(nfeatures=limit).detect(gray, None),  # type: ignore[attr-defined]
        key=lambda k: -k.response,
    )[:limit]
    rows = np.array([(*k.pt, k.size, k.angle) for k in found], float).reshape(-1, 4)
    return Keypoints(rows[:, :2] + 0.5, rows[:, 2] / 2, np.deg2rad(rows[:, 3]))


def has_opencv() -> bool:
    """True if the optional package OpenCV is installed."""
    return importlib.util.find_spec("cv2") is not None


def scale_space(image: Float[np.ndarray, "h w"]) -> list[Octave]:
    """Octaves of blurred levels, as many as the largest patch requires."""
    largest = MAX_SIDE_SHARE * min(image.shape) / (2 * HALF_SIDE_SIGMAS)
    first = BASE_SIGMA * 2 ** (-1 / LEVELS_PER_OCTAVE)
    base = _blur(image.astype(np.float32), np.sqrt(first**2 - INPUT_BLUR**2))
    octaves, pixel = [], 1
    while pixel * BASE_SIGMA <= largest and min(base.shape) >= 16:
        levels = [base]
        for k in range(LEVELS_PER_OCTAVE + 1):
            sigma = BASE_SIGMA * 2 ** (k / LEVELS_PER_OCTAVE)
            levels.append(_blur(base, np.sqrt(sigma**2 - first**2)))
        octaves.append(Octave(np.stack(levels), pixel))
        # Level 3 has twice the blur of level 0, so every second pixel of it is the next octave.
        base, pixel = levels[LEVELS_PER_OCTAVE][::2, ::2], pixel * 2
    return octaves


def drop_overlaps(
    xy: Float[np.ndarray, "n 2"], radius: Float[np.ndarray, " n"], *, limit: int
) -> Int[np.ndarray, " kept"]:
    """Indices of circles whose intersection over union with every earlier kept one is at most ½."""
    kept = np.empty(min(limit, len(xy)), np.int64)
    places, radii, count = np.empty((len(kept), 2)), np.empty(len(kept)), 0
    for i in range(len(xy)):
        if count == limit:
            break
        distance = np.hypot(*(places[:count] - xy[i]).T)
        # Circles that share half of their union have centers closer than the larger radius.
        near = np.flatnonzero(distance < np.maximum(radii[:count], radius[i]))
        if (
            len(near)
            and (circle_overlap(distance[near], radii[near], radius[i]) > MAX_OVERLAP).any()
        ):
            continue
        kept[count], places[count], radii[count] = i, xy[i], radius[i]
        count += 1
    return kept[:count]


def circle_overlap(
    distance: Float[np.ndarray, " n"], r: Float[np.ndarray, " n"], s: float
) -> Float[np.ndarray, " n"]:
    """Intersection over union of circles with radii r and s, in [0, 1]."""
    # Clipping the distance covers disjoint and nested circles by the general formula.
    d = np.clip(distance, np.abs(r - s) + 1e-9, r + s)
    part_r = np.arccos(np.clip((d**2 + r**2 - s**2) / (2 * d * r), -1, 1))
    part_s = np.arccos(np.clip((d**2 + s**2 - r**2) / (2 * d * s), -1, 1))
    kite = np.sqrt(np.clip((r + s - d) * (d + r - s) * (d - r + s) * (d + r + s), 0, None)) / 2
    common = r**2 * part_r + s**2 * part_s - kite
    return common / (np.pi * (r**2 + s**2) - common)


def gaussian_blur(
    image: Float[np.ndarray, "h w"], sigma: float, *, truncate: float = 4.0, mode: Any = "symmetric"
) -> Float[np.ndarray, "h w"]:
    """Gaussian blur, by products with band matrices: three times as fast as scipy's filter.

    Sums are float64 as scipy's, so the float32 results are equal.

    Args:
        image: float32 picture.
        sigma: standard deviation in pixels.
        truncate: radius of the kernel in ``sigma``.
        mode: NumPy's name of what lies outside the picture.
    """
    reach = int(truncate * sigma + 0.5)
    kernel = np.exp(-0.5 / sigma**2 * np.arange(-reach, reach + 1) ** 2)
    band = np.zeros((BLUR_ROWS, BLUR_ROWS + 2 * reach))
    for row in range(BLUR_ROWS):
        band[row, row : row + len(kernel)] = kernel / kernel.sum()
    down = _filter_rows(image, band, mode)
    return np.ascontiguousarray(_filter_rows(down.T, band, mode).T)


def _blur(image: Float[np.ndarray, "h w"], sigma: float) -> Float[np.ndarray, "h w"]:
    return gaussian_blur(image, sigma, truncate=3.0, mode="edge")


def _filter_rows(
    image: Float[np.ndarray, "h w"], band: Float[np.ndarray, "rows reached"], mode: Any
) -> Float[np.ndarray, "h w"]:
    """Columns of a picture multiplied by a band matrix, block of rows by block of rows."""
    reach = (band.shape[1] - len(band)) // 2
    padded = np.pad(image.astype(np.float64), [(reach, reach), (0, 0)], mode=mode)
    found = np.empty(image.shape, np.float32)
    for start in range(0, len(image), len(band)):
        rows = min(len(band), len(image) - start)
        block = padded[start : start + rows + 2 * reach]
        found[start : start + rows] = band[:rows, : len(block)] @ block
    return found


def _strongest(octaves: list[Octave], kind: int, shape: tuple[int, ...]) -> _Candidates:
    found = [_maxima(o, i, kind, shape) for i, o in enumerate(octaves)]
    merged = _Candidates(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
    order = np.argsort(-merged.strength, kind="stable")[:MAX_CANDIDATES]
    return _Candidates(*(a[order] for a in merged))


def _interleave(kinds: list[_Candidates]) -> _Candidates:
    """Interleave detectors by rank, because their responses are not comparable."""
    rank = np.concatenate([np.arange(len(k.strength)) for k in kinds])
    order = np.argsort(rank, kind="stable")
    return _Candidates(*(np.concatenate(parts)[order] for parts in zip(*kinds, strict=True)))


def _maxima(octave: Octave, number: int, kind: int, shape: tuple[int, ...]) -> _Candidates:
    """Local maxima over position and scale whose neighborhood lies inside the photograph."""
    sigmas = BASE_SIGMA * 2 ** (np.arange(-1, LEVELS_PER_OCTAVE + 1) / LEVELS_PER_OCTAVE)
    response = np.stack(
        [RESPONSES[kind](im, s) for im, s in zip(octave.levels, sigmas, strict=True)]
    )
    level, y, x = np.nonzero(_peaks(response))
    at = np.stack([level, y, x]) + 1
    shift = np.stack([_parabola_vertex(response, at, axis) for axis in range(3)])
    sigma = sigmas[at[0]] * 2 ** (shift[0] / LEVELS_PER_OCTAVE)
    yx = (at[1:] + shift[1:]).T
    reach = BORDER_SCALE * HALF_SIDE_SIGMAS * sigma * octave.pixel
    position = yx * octave.pixel + 0.5
    inside = (position >= reach[:, None]).all(1) & (position + reach[:, None] <= shape).all(1)
    inside &= 2 * HALF_SIDE_SIGMAS * sigma * octave.pixel <= MAX_SIDE_SHARE * min(shape)
    strength = response[tuple(at)]
    numbers = np.full(len(sigma), number)
    return _Candidates(*(a[inside] for a in (numbers, at[0], yx, sigma, strength)))


def _peaks(response: Float[np.ndarray, "k h w"]) -> Bool[np.ndarray, "k-2 h-2 w-2"]:
    """Mask of the inner places whose response is positive and no less than all 26 around it."""
    largest = response
    for axis in range(3):
        before, here, after = (
            largest[(slice(None),) * axis + (slice(k, largest.shape[axis] - 2 + k),)]
            for k in range(3)
        )
        largest = np.maximum(np.maximum(before, here), after)
    inner = response[1:-1, 1:-1, 1:-1]
    return (inner == largest) & (inner > MIN_RESPONSE)


def _parabola_vertex(
    response: Float[np.ndarray, "5 h w"], at: Int[np.ndarray, "3 n"], axis: int
) -> Float[np.ndarray, " n"]:
    """Offset of the vertex of a parabola through the neighbors on one axis, within ±½ step."""
    step = np.zeros((3, 1), int)
    step[axis] = 1
    before, here, after = (response[tuple(at + k * step)] for k in (-1, 0, 1))
    bend = 2 * here - before - after
    return np.clip((after - before) / (2 * np.maximum(bend, 1e-12)), -0.5, 0.5)


def _hessian(image: Float[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Second derivatives xx, xy, yy by finite differences."""
    padded = np.pad(image, 1, mode="edge")
    middle = 2 * image
    xx = padded[1:-1, 2:] + padded[1:-1, :-2] - middle
    yy = padded[2:, 1:-1] + padded[:-2, 1:-1] - middle
    xy = (padded[2:, 2:] - padded[2:, :-2] - padded[:-2, 2:] + padded[:-2, :-2]) / 4
    return xx, xy, yy


def _laplacian(image: Float[np.ndarray, "h w"], sigma: float) -> Float[np.ndarray, "h w"]:
    """Response |LoG|, approximated by DoG, without points on straight edges (Lowe 2004, eq. 5)."""
    xx, xy, yy = _hessian(image)
    trace = xx + yy
    edge = trace**2 * EDGE_RATIO >= (EDGE_RATIO + 1) ** 2 * (xx * yy - xy**2)
    return np.where(edge, 0, sigma**2 * np.abs(trace))


def _hessian_determinant(image: Float[np.ndarray, "h w"], sigma: float) -> Float[np.ndarray, "h w"]:
    xx, xy, yy = _hessian(image)
    return sigma**4 * (xx * yy - xy**2)


def _harris(image: Float[np.ndarray, "h w"], sigma: float) -> Float[np.ndarray, "h w"]:
    gy, gx = np.gradient(image)
    xx, xy, yy = (_blur(p, HARRIS_WINDOW * sigma) for p in (gx * gx, gx * gy, gy * gy))
    return sigma**4 * (xx * yy - xy**2 - HARRIS_K * (xx + yy) ** 2)


RESPONSES = (_laplacian, _hessian_determinant, _harris)


def _orientations(
    octaves: list[Octave], points: _Candidates, peak_share: float
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Index of the point and angle of each keypoint, in order of the points."""
    rows, angles = [np.empty(0, int)], [np.empty(0)]
    for o, octave in enumerate(octaves):
        for level, image in enumerate(octave.levels):
            here = np.nonzero((points.octave == o) & (points.level == level))[0]
            if len(here):
                histogram = _directions(image, points.yx[here], points.sigma[here])
                point, angle = _peak_angles(histogram, peak_share)
                rows.append(here[point])
                angles.append(angle)
    row, angle = np.concatenate(rows), np.concatenate(angles)
    order = np.argsort(row, kind="stable")
    return row[order], angle[order]


def _directions(
    image: Float[np.ndarray, "h w"], yx: Float[np.ndarray, "n 2"], sigma: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 36"]:
    """Smoothed 36-bin histograms of gradient directions (Lowe 2004, §5)."""
    bins, window = 36, 1.5 * sigma
    gy, gx = np.gradient(image)
    reach = int(np.ceil(3 * window.max()))
    offsets = np.indices((2 * reach + 1, 2 * reach + 1)).reshape(2, -1).T - reach
    center = np.rint(yx).astype(int)
    position = center[:, None] + offsets
    apart = ((position - yx[:, None]) ** 2).sum(-1)
    weight = np.exp(-apart / (2 * window[:, None] ** 2)) * (apart <= (3 * window[:, None]) ** 2)
    y, x = np.moveaxis(np.clip(position, 0, np.array(image.shape) - 1), -1, 0)
    dy, dx = gy[y, x], gx[y, x]
    direction = np.floor(np.arctan2(dy, dx) / (2 * np.pi) * bins).astype(int) % bins
    rows = np.arange(len(yx))[:, None] * bins
    histogram = np.bincount(
        (rows + direction).ravel(), (weight * np.hypot(dy, dx)).ravel(), len(yx) * bins
    ).reshape(-1, bins)
    for _ in range(2):
        histogram = (np.roll(histogram, 1, 1) + histogram + np.roll(histogram, -1, 1)) / 3
    return histogram


def _peak_angles(
    histogram: Float[np.ndarray, "n 36"], peak_share: float
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Row and angle of the peaks that reach a share of the row's highest; the highest first."""
    row, top = np.arange(len(histogram)), histogram.argmax(1)
    if peak_share < 1:
        peak = (histogram > np.roll(histogram, 1, 1)) & (histogram >= np.roll(histogram, -1, 1))
        peak &= histogram >= peak_share * histogram.max(1, keepdims=True)
        peak[row, top] = False
        others = np.nonzero(peak)
        row, top = np.concatenate([row, others[0]]), np.concatenate([top, others[1]])
    bins = histogram.shape[1]
    left, here, right = (histogram[row, (top + k) % bins] for k in (-1, 0, 1))
    shift = (right - left) / (2 * np.maximum(2 * here - left - right, 1e-12))
    return row, (top + 0.5 + np.clip(shift, -0.5, 0.5)) * 2 * np.pi / bins
