"""Matching of two photographs: detection, description, mutual nearest neighbors, geometry.

Coordinates are pixels of the files as they are stored; pixel i covers [i, i + 1].
"""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw
from skimage.measure import ransac
from skimage.transform import FundamentalMatrixTransform, ProjectiveTransform

from hpsearch.data.image_sequences import load_homography, load_stored_gray, maps_into
from hpsearch.data.keypoint_files import colmap_features, colmap_matches, opencv_rows
from hpsearch.data.photo_keypoints import has_opencv
from hpsearch.data.photo_synthesis import project
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.shapes import Bool, Float, Int
from hpsearch.workflows.keypoint_descriptors import (
    BASE_MODEL,
    Detector,
    ImageFeatures,
    detect_and_describe,
    existing_file,
    load_descriptor_function,
)

Geometry = Literal["homography", "fundamental"]
"""Relation of two pictures: a homography (of a plane, or a camera that only turns), or a
fundamental matrix (of any rigid scene from two camera positions)."""
CORRECT_PIXELS = 3.0
"""Distance from the true place within which a match is correct."""
RANSAC_TRIALS, RANSAC_CONFIDENCE = 5000, 0.999
MIN_MATCHES = 4
"""Matches that determine a homography."""
EPIPOLAR_PIXELS = 1.5
"""Distance from the epipolar line within which a match fits a fundamental matrix. It is smaller
than that from a place, since a line has more wrong places near it."""
EPIPOLAR_TRIALS = 10_000
MIN_EPIPOLAR_MATCHES = 8
"""Matches that determine a fundamental matrix by the eight-point algorithm."""
INLIER, OUTLIER = (60, 200, 90), (220, 80, 70)
MAX_DRAWN = 400
"""Number of matches that a picture shows; more hide it."""


@dataclass(frozen=True, eq=False)
class MatchResult:
    """Matches of two pictures."""

    first: ImageFeatures
    second: ImageFeatures
    matches: Int[np.ndarray, "m 2"]
    """Indices of the matched keypoints in the first and in the second picture, best ratio first."""
    ratios: Float[np.ndarray, " m"]
    """Distance to the nearest descriptor divided by the distance to the second nearest."""
    homography: Float[np.ndarray, "3 3"] | None
    """Homography from the first picture to the second; None if none fits, or none was wanted."""
    inliers: Bool[np.ndarray, " m"]
    """Mask of the matches that fit the homography, or the fundamental matrix."""
    correct: Bool[np.ndarray, " m"] | None = None
    """Mask of the matches within 3 pixels of a given true homography; None if none was given."""
    fundamental: Float[np.ndarray, "3 3"] | None = None
    """Fundamental matrix F, with x₂ᵀ F x₁ = 0 and norm 1; None if none fits, or none was wanted."""

    def places(self) -> tuple[Float[np.ndarray, "m 2"], Float[np.ndarray, "m 2"]]:
        """Coordinates x, y of the matches in both pictures."""
        first, second = self.matches.T
        return self.first.keypoints.xy[first], self.second.keypoints.xy[second]


def match_images(
    first: str | Path,
    second: str | Path,
    *,
    model: str = BASE_MODEL,
    points: int = 2000,
    ratio: float = 0.9,
    homography: str | Path | None = None,
    detector: Detector = "hpsearch",
    geometry: Geometry = "homography",
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
) -> MatchResult:
    """Match two photographs with a descriptor.

    Args:
        first: a PPM, PNG, JPEG, WebP, BMP or TIFF picture.
        second: the other picture.
        model: ``hpsearch-base``, ``rootsift``, or another reference of a model.
        points: maximum number of keypoints of each picture.
        ratio: largest ratio of the distances to the nearest and the second nearest descriptor, in
            (0, 1]; 1 keeps all mutual nearest neighbors.
        homography: file of the true homography from the first to the second, by which correct
            matches are counted.
        detector: ``hpsearch``, or ``opencv`` for its SIFT, which is faster and finds fewer correct
            matches.
        geometry: what is estimated, by OpenCV's MAGSAC where OpenCV is installed, and else by
            RANSAC: ``homography`` for a flat scene or a camera that only turns, ``fundamental``
            for a scene with depth.
        tracking_uri: address of MLflow; SQLite in ``home`` if None.
        home: folder of data, searches and MLflow's files.

    Raises:
        UserError: if a picture, the homography or the model cannot be read, or a picture has no
            keypoints.
    """
    true = None if homography is None else load_homography(existing_file(homography))
    grays = [load_stored_gray(existing_file(file)) for file in (first, second)]
    if true is not None and not maps_into(true, *grays):
        raise UserError(
            f"{homography} maps {first} outside {second}; give the homography for pictures of "
            "this size"
        )
    describe = load_descriptor_function(model, tracking_uri=tracking_uri, home=home)
    one, other = (
        detect_and_describe(gray, file, describe, points, detector=detector)
        for gray, file in zip(grays, (first, second), strict=True)
    )
    matches, ratios = match_descriptors(one.descriptors, other.descriptors, ratio=ratio)
    here, there = one.keypoints.xy[matches[:, 0]], other.keypoints.xy[matches[:, 1]]
    estimate = estimate_homography if geometry == "homography" else estimate_fundamental
    estimated, inliers = estimate(here, there)
    correct = None
    if true is not None:
        correct = np.linalg.norm(project(true, here) - there, axis=1) <= CORRECT_PIXELS
    found = {"homography": None, "fundamental": None, geometry: estimated}
    return MatchResult(one, other, matches, ratios, inliers=inliers, correct=correct, **found)


def descriptor_distances(
    first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"]
) -> Float[np.ndarray, "n m"]:
    """Euclidean distances of all pairs of descriptors."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.clip(squared, 0, None))


def match_descriptors(
    first: Float[np.ndarray, "n d"], second: Float[np.ndarray, "m d"], *, ratio: float
) -> tuple[Int[np.ndarray, "k 2"], Float[np.ndarray, " k"]]:
    """Mutual nearest neighbors, the smallest ratio to the second nearest first.

    A set of one descriptor has no second nearest; its ratio is 0.

    Args:
        first: descriptors of one picture.
        second: descriptors of the other.
        ratio: largest accepted ratio, in (0, 1].
    """
    if not (len(first) and len(second)):
        return np.empty((0, 2), int), np.empty(0)
    distance = descriptor_distances(first, second)
    nearest = distance.argmin(1)
    rows = np.arange(len(first))
    mutual = distance.argmin(0)[nearest] == rows
    best = distance[rows, nearest]
    distance[rows, nearest] = np.inf
    following = distance.min(1)
    with np.errstate(invalid="ignore"):
        ratios = np.where(following > 0, best / following, 1.0)
    kept = np.flatnonzero(mutual & (ratios <= ratio))
    kept = kept[np.argsort(ratios[kept], kind="stable")]
    return np.column_stack([kept, nearest[kept]]), ratios[kept]


def estimate_homography(
    first: Float[np.ndarray, "m 2"], second: Float[np.ndarray, "m 2"]
) -> tuple[Float[np.ndarray, "3 3"] | None, Bool[np.ndarray, " m"]]:
    """Homography that most matches fit within 3 pixels (RANSAC), and the mask of these.

    The same matches give the same homography. None and no inliers if there are fewer than four
    matches, or no homography fits.
    """
    nothing = None, np.zeros(len(first), bool)
    if len(first) < MIN_MATCHES:
        return nothing
    if has_opencv():
        h, inliers = _magsac(first, second)
    else:
        h, inliers = _ransac(
            first, second, ProjectiveTransform, MIN_MATCHES, CORRECT_PIXELS, RANSAC_TRIALS
        )
    if h is None or not np.isfinite(h).all() or inliers.sum() < MIN_MATCHES or not h[2, 2]:
        return nothing
    return h / h[2, 2], inliers


def estimate_fundamental(
    first: Float[np.ndarray, "m 2"], second: Float[np.ndarray, "m 2"]
) -> tuple[Float[np.ndarray, "3 3"] | None, Bool[np.ndarray, " m"]]:
    """Fundamental matrix that most matches fit within 1.5 pixels, and the mask of these.

    The same matches give the same matrix, of norm 1. None and no inliers if there are fewer than
    eight matches, or no matrix fits eight. Matches on one plane do not determine it.
    """
    nothing = None, np.zeros(len(first), bool)
    if len(first) < MIN_EPIPOLAR_MATCHES:
        return nothing
    if has_opencv():
        f, inliers = _magsac_fundamental(first, second)
    else:
        f, inliers = _ransac(
            first, second, FundamentalMatrixTransform, MIN_EPIPOLAR_MATCHES, EPIPOLAR_PIXELS,
            EPIPOLAR_TRIALS,
        )  # fmt: skip
    usable = f is not None and f.shape == (3, 3) and np.isfinite(f).all() and f.any()
    if f is None or not usable or inliers.sum() < MIN_EPIPOLAR_MATCHES:
        return nothing
    return f / np.linalg.norm(f), inliers


def _magsac(
    first: Float[np.ndarray, "m 2"], second: Float[np.ndarray, "m 2"]
) -> tuple[Float[np.ndarray, "3 3"] | None, Bool[np.ndarray, " m"]]:
    """MAGSAC++ of OpenCV (Barath et al., CVPR 2020)."""
    import cv2

    cv2.setRNGSeed(0)
    h, mask = cv2.findHomography(
        first, second, cv2.USAC_MAGSAC, CORRECT_PIXELS, None, RANSAC_TRIALS, RANSAC_CONFIDENCE
    )
    found = np.zeros(len(first), bool) if mask is None else np.asarray(mask, bool).ravel()
    return h, found


def _magsac_fundamental(
    first: Float[np.ndarray, "m 2"], second: Float[np.ndarray, "m 2"]
) -> tuple[Float[np.ndarray, "3 3"] | None, Bool[np.ndarray, " m"]]:
    import cv2

    cv2.setRNGSeed(0)
    f, mask = cv2.findFundamentalMat(
        first, second, cv2.USAC_MAGSAC, EPIPOLAR_PIXELS, RANSAC_CONFIDENCE, EPIPOLAR_TRIALS
    )
    found = np.zeros(len(first), bool) if mask is None else np.asarray(mask, bool).ravel()
    return f, found


def _ransac(
    first: Float[np.ndarray, "m 2"],
    second: Float[np.ndarray, "m 2"],
    model: type[ProjectiveTransform | FundamentalMatrixTransform],
    matches: int,
    pixels: float,
    trials: int,
) -> tuple[Float[np.ndarray, "3 3"] | None, Bool[np.ndarray, " m"]]:
    """RANSAC of scikit-image."""
    # Typed by its stubs as taking whole numbers only.
    settings: dict[str, Any] = {"max_trials": trials, "stop_probability": RANSAC_CONFIDENCE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that no match fits, as the result shows
        fitted, found = ransac(
            (first, second), model, matches, pixels, rng=np.random.default_rng(0), **settings
        )
    inliers = np.zeros(len(first), bool) if found is None else np.asarray(found, bool)
    return (np.asarray(fitted.params) if fitted else None), inliers


def draw_matches(result: MatchResult) -> Image.Image:
    """Both pictures side by side, with inliers green and other matches red.

    If there are more than 400 matches, the best 400 are drawn.
    """
    grays = result.first.gray, result.second.gray
    height, gap = max(g.shape[0] for g in grays), 8
    offset = grays[0].shape[1] + gap
    canvas = Image.new("RGB", (offset + grays[1].shape[1], height), "white")
    canvas.paste(Image.fromarray(grays[0]).convert("RGB"), (0, 0))
    canvas.paste(Image.fromarray(grays[1]).convert("RGB"), (offset, 0))
    pen = ImageDraw.Draw(canvas)
    good = result.inliers if result.correct is None else result.correct
    lines = list(zip(*result.places(), good, strict=True))[:MAX_DRAWN]
    for start, end, fits in sorted(lines, key=lambda line: line[2]):
        color = INLIER if fits else OUTLIER
        ends = (float(start[0]), float(start[1])), (float(end[0]) + offset, float(end[1]))
        pen.line(ends, fill=color, width=1)
        for x, y in ends:
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), outline=color)
    return canvas


def match_table(result: MatchResult) -> str:
    """Matches as CSV: number and place of both keypoints as OpenCV counts, ratio, inlier."""
    lines = ["keypoint1,x1,y1,size1,angle1,keypoint2,x2,y2,size2,angle2,ratio,inlier"]
    first, second = (opencv_rows(part.keypoints) for part in (result.first, result.second))
    for (i, j), ratio, fits in zip(result.matches, result.ratios, result.inliers, strict=True):
        places = [",".join(f"{x:.3f}" for x in row) for row in (first[i], second[j])]
        lines.append(f"{i},{places[0]},{j},{places[1]},{ratio:.5f},{int(fits)}")
    return "\n".join(lines) + "\n"


def check_colmap_names(first: str, second: str) -> None:
    """Check that two pictures can lie in COLMAP's one folder of images.

    Raises:
        UserError: if their names are equal.
    """
    if first == second:
        raise UserError(
            f"COLMAP needs two names, but both pictures are {first}; rename one", code="equal-names"
        )


def save_colmap(result: MatchResult, folder: Path, names: tuple[str, str]) -> None:
    """Write feature files and a list of matches that COLMAP's importers read.

    Args:
        result: the matches.
        folder: folder for ``NAME.txt`` of both pictures and ``matches.txt``.
        names: file names of the pictures in COLMAP's folder of images.

    Raises:
        UserError: if the names are equal, or descriptors have not 128 numbers.
    """
    check_colmap_names(*names)
    texts = {
        f"{name}.txt": colmap_features(part.keypoints, part.descriptors)
        for name, part in zip(names, (result.first, result.second), strict=True)
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (texts | {"matches.txt": colmap_matches(names, result.matches)}).items():
        (folder / name).write_text(text, "utf-8")


def match_arrays(result: MatchResult) -> dict[str, np.ndarray]:
    """Keypoints (x, y, σ, angle), descriptors and matches as arrays, for an ``.npz`` file."""
    arrays = {"matches": result.matches, "ratios": result.ratios, "inliers": result.inliers}
    for name, features in (("first", result.first), ("second", result.second)):
        k = features.keypoints
        arrays[f"{name}_keypoints"] = np.column_stack([k.xy, k.sigma, k.angle])
        arrays[f"{name}_descriptors"] = features.descriptors
    if result.homography is not None:
        arrays["homography"] = result.homography
    if result.fundamental is not None:
        arrays["fundamental"] = result.fundamental
    return arrays
