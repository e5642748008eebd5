"""Scores of a descriptor on points that are detected in each picture by itself.

No jitter is added, so the errors of place, scale and angle are a detector's own. A point of the
first picture is *possible* if some point of the second lies within a few pixels of its projection,
*consistent* if one of these also has the scale and angle that the homography asks for, and its
match is *correct* if the nearest descriptor belongs to a point within that distance.
"""

from typing import NamedTuple

import numpy as np

from hpsearch.data.detected_views import (
    moved_keypoints,
    scale_and_angle_errors,
    within_limits,
)
from hpsearch.data.photo_keypoints import Keypoints
from hpsearch.data.photo_synthesis import project
from hpsearch.shapes import Bool, Float

RADII = (1.0, 3.0, 5.0)
"""Distances in pixels within which a match is correct."""


ACCURACY_RADII = tuple(range(1, 11))
"""Distances in pixels of the matching accuracy."""
CORNER_LIMITS = (1.0, 3.0, 5.0, 10.0)
"""Largest errors in pixels of the homography's corners, to which areas are taken."""


class PairScores(NamedTuple):
    """Scores of one pair of pictures within one distance."""

    possible: int
    """Number of possible points."""
    consistent: int
    """Number of consistent points."""
    recall: float
    """Share of the possible points with a correct match; NaN without possible points."""
    consistent_recall: float
    """Share of the consistent points with a correct match."""
    average_precision: float
    """Sum of the precisions at each correct match of a possible point, over their number."""
    consistent_average_precision: float
    """The same over consistent points; others do not count."""


def score_pair(
    first: Keypoints,
    second: Keypoints,
    homography: Float[np.ndarray, "3 3"],
    distances: Float[np.ndarray, "n m"],
    *,
    radius: float = 3.0,
) -> PairScores:
    """Score the nearest descriptors of a pair.

    Args:
        first: keypoints of the first picture.
        second: keypoints of the second, at least two.
        homography: from the first to the second.
        distances: distances of the descriptors.
        radius: largest distance in pixels of a correct match.
    """
    apart = _distances_to_projection(first, second, homography)
    near = apart <= radius
    possible = np.asarray(near.any(1))
    fitting = near & _fits(first, second, homography)
    consistent = np.asarray(fitting.any(1))
    nearest = distances.argmin(1)
    correct = near[np.arange(len(near)), nearest]
    best, following = np.partition(distances, 1, axis=1)[:, :2].T
    with np.errstate(invalid="ignore"):
        ratio = np.where(following > 0, best / following, 1.0)
    return PairScores(
        int(possible.sum()),
        int(consistent.sum()),
        _share(correct, possible),
        _share(correct, consistent),
        average_precision_over(correct, ratio, possible),
        average_precision_over(correct, ratio, consistent),
    )


def matching_accuracy(
    here: Float[np.ndarray, "m 2"],
    there: Float[np.ndarray, "m 2"],
    homography: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, " 10"]:
    """Share of matches within 1, 2, … 10 pixels of the true place; zeros without matches.

    Args:
        here: places of the matches in the first picture.
        there: their places in the second.
        homography: from the first to the second.
    """
    if not len(here):
        return np.zeros(len(ACCURACY_RADII))
    apart = np.linalg.norm(project(homography, here) - there, axis=1)
    return (apart[:, None] <= np.array(ACCURACY_RADII)).mean(0)


def corner_error(
    estimated: Float[np.ndarray, "3 3"] | None,
    homography: Float[np.ndarray, "3 3"],
    width: int,
    height: int,
) -> float:
    """Mean distance in pixels of the first picture's corners from their true places.

    Infinite if there is no estimated homography.
    """
    if estimated is None:
        return float("inf")
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = project(estimated, corners) - project(homography, corners)
    error = float(np.linalg.norm(apart, axis=1).mean())
    return error if np.isfinite(error) else float("inf")


def area_under_errors(error: float, limit: float) -> float:
    """Contribution of one pair to the area under the curve of corner errors up to a limit.

    The mean over pairs is the area under the share of pairs with a smaller error, over ``limit``.
    """
    return max(0.0, 1 - error / limit)


def average_precision_over(
    correct: Bool[np.ndarray, " n"],
    ratio: Float[np.ndarray, " n"],
    relevant: Bool[np.ndarray, " n"],
) -> float:
    """Sum of the precisions at each correct match in order of the ratio, over the relevant points.

    Matches of points that are not relevant are left out. NaN if no point is relevant.
    """
    if not relevant.any():
        return float("nan")
    order = np.argsort(ratio[relevant], kind="stable")
    found = correct[relevant][order]
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    return float((precision * found).sum() / relevant.sum())


def _distances_to_projection(
    first: Keypoints, second: Keypoints, homography: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "n m"]:
    there = project(homography, first.xy)
    return np.linalg.norm(there[:, None] - second.xy, axis=2)


def _fits(
    first: Keypoints, second: Keypoints, homography: Float[np.ndarray, "3 3"]
) -> Bool[np.ndarray, "n m"]:
    """Mask of the pairs whose scale and angle are what the homography's Jacobian asks for."""
    moved = moved_keypoints(first, homography)
    return within_limits(*scale_and_angle_errors(moved, second))


def _share(correct: Bool[np.ndarray, " n"], relevant: Bool[np.ndarray, " n"]) -> float:
    return float(correct[relevant].mean()) if relevant.any() else float("nan")
