"""Matching of two photographs: detection, description, mutual nearest neighbors, homography.

Coordinates are pixels of the files as they are stored; pixel i covers [i, i + 1].
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from skimage.measure import ransac
from skimage.transform import ProjectiveTransform

from hpsearch.data.image_sequences import load_homography, load_stored_gray
from hpsearch.data.images import area_downsample
from hpsearch.data.photo_keypoints import Keypoints, detect
from hpsearch.data.photo_synthesis import (
    BORDER_PIXELS,
    extract_patches,
    inside,
    project,
    squares,
)
from hpsearch.defaults import DEFAULT_HOME, ROOT_SIFT
from hpsearch.errors import UserError
from hpsearch.evaluation.baselines import root_sift
from hpsearch.models.ensemble import Ensemble
from hpsearch.models.pipeline import Pipeline
from hpsearch.models.serialization import describe_any
from hpsearch.promotion.model_evaluation import load_pipeline_by_ref
from hpsearch.search.workspace import Workspace
from hpsearch.shapes import Bool, Float, Int, UInt8

BASE_MODEL = "hpsearch-base"
MAX_SIDE = 1600
"""Longer side in pixels above which points are detected in a reduced picture."""
CORRECT_PIXELS = 3.0
"""Distance from the true place within which a match is correct."""
RANSAC_TRIALS = 5000
MIN_MATCHES = 4
"""Matches that determine a homography."""
INLIER, OUTLIER = (60, 200, 90), (220, 80, 70)
MAX_DRAWN = 400
"""Number of matches that a picture shows; more hide it."""


class ImageFeatures(NamedTuple):
    """Keypoints of one picture with their descriptors."""

    gray: UInt8[np.ndarray, "h w"]
    keypoints: Keypoints
    descriptors: Float[np.ndarray, "n d"]


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
    """Homography from the first picture to the second; None if it cannot be estimated."""
    inliers: Bool[np.ndarray, " m"]
    """Mask of the matches that fit the homography."""
    correct: Bool[np.ndarray, " m"] | None = None
    """Mask of the matches within 3 pixels of a given true homography; None if none was given."""

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
        tracking_uri: address of MLflow; SQLite in ``home`` if None.
        home: folder of data, searches and MLflow's files.

    Raises:
        UserError: if a picture, the homography or the model cannot be read, or a picture has no
            keypoints.
    """
    true = None if homography is None else load_homography(_existing(homography))
    grays = [load_stored_gray(_existing(file)) for file in (first, second)]
    describe = load_descriptor_function(model, tracking_uri=tracking_uri, home=home)
    one, other = (
        detect_and_describe(gray, file, describe, points)
        for gray, file in zip(grays, (first, second), strict=True)
    )
    matches, ratios = match_descriptors(one.descriptors, other.descriptors, ratio=ratio)
    here, there = one.keypoints.xy[matches[:, 0]], other.keypoints.xy[matches[:, 1]]
    estimated, inliers = estimate_homography(here, there)
    correct = None
    if true is not None:
        correct = np.linalg.norm(project(true, here) - there, axis=1) <= CORRECT_PIXELS
    return MatchResult(one, other, matches, ratios, estimated, inliers, correct)


class DescriptorFunction(NamedTuple):
    """Descriptor of patches, by a pipeline or by RootSIFT."""

    pipeline: Pipeline | Ensemble | None

    def __call__(self, patches: UInt8[np.ndarray, "n 32 32"]) -> Float[np.ndarray, "n d"]:
        """Descriptors of patches, one a row."""
        if self.pipeline is None:
            return root_sift(patches)
        return describe_any(self.pipeline, patches)


def load_descriptor_function(
    model: str, *, tracking_uri: str | None = None, home: str | Path = DEFAULT_HOME
) -> DescriptorFunction:
    """Descriptor function of a model, or of RootSIFT.

    Raises:
        UserError: if there is no such model.
    """
    if model.lower() == ROOT_SIFT:
        return DescriptorFunction(None)
    return DescriptorFunction(load_pipeline_by_ref(model, Workspace(Path(home)), uri=tracking_uri))


def describe_keypoints(
    gray: UInt8[np.ndarray, "h w"], keypoints: Keypoints, describe: DescriptorFunction
) -> Float[np.ndarray, "n d"]:
    """Descriptors of given keypoints of a gray picture.

    Args:
        gray: gray levels.
        keypoints: place, scale σ in pixels (half the side of a patch is 5 σ) and angle.
        describe: a descriptor, from ``load_descriptor_function``.
    """
    return describe(area_downsample(extract_patches(gray, squares(keypoints))))


def detect_and_describe(
    gray: UInt8[np.ndarray, "h w"], file: str | Path, describe: DescriptorFunction, points: int
) -> ImageFeatures:
    """Keypoints of a picture whose patches lie inside, and their descriptors.

    Args:
        gray: gray levels; points of larger pictures are detected at 1600 pixels.
        file: name of the picture, for an error message.
        describe: a descriptor, from ``load_descriptor_function``.
        points: maximum number of points.

    Raises:
        UserError: if there are none.
    """
    scale = max(1.0, max(gray.shape) / MAX_SIDE)
    size = [max(round(side / scale), 1) for side in gray.shape[::-1]]
    reduced = gray
    if scale > 1:
        reduced = np.asarray(Image.fromarray(gray).resize(size, Image.Resampling.BOX))
    found = detect(reduced.astype(np.float32), limit=points)
    factor = np.array(gray.shape[::-1]) / size
    found = Keypoints(found.xy * factor, found.sigma * factor.mean(), found.angle)
    kept = inside(squares(found), *gray.shape[::-1], margin=BORDER_PIXELS)
    found = Keypoints(*(part[kept] for part in found))
    if not len(found.xy):
        raise UserError(f"{file} has no keypoints; give a larger picture with more structure")
    return ImageFeatures(gray, found, describe_keypoints(gray, found, describe))


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
    # Typed by its stubs as taking whole numbers only.
    settings: dict[str, Any] = {"max_trials": RANSAC_TRIALS, "stop_probability": 0.999}
    model, found = ransac(
        (first, second), ProjectiveTransform, MIN_MATCHES, CORRECT_PIXELS,
        rng=np.random.default_rng(0), **settings,
    )  # fmt: skip
    inliers = np.asarray(found, bool)
    if not model or inliers.sum() < MIN_MATCHES:
        return nothing
    h = np.asarray(model.params)
    return h / h[2, 2], inliers


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


def match_arrays(result: MatchResult) -> dict[str, np.ndarray]:
    """Keypoints (x, y, σ, angle), descriptors and matches as arrays, for an ``.npz`` file."""
    arrays = {"matches": result.matches, "ratios": result.ratios, "inliers": result.inliers}
    for name, features in (("first", result.first), ("second", result.second)):
        k = features.keypoints
        arrays[f"{name}_keypoints"] = np.column_stack([k.xy, k.sigma, k.angle])
        arrays[f"{name}_descriptors"] = features.descriptors
    if result.homography is not None:
        arrays["homography"] = result.homography
    return arrays


def _existing(file: str | Path) -> Path:
    if not Path(file).is_file():
        raise UserError(f"there is no file {file}; check the path")
    return Path(file)
