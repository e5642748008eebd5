"""Scores of points that are detected in each picture by itself."""

import numpy as np
import pytest

from hpsearch.data.photo_keypoints import Keypoints
from hpsearch.data.photo_synthesis import project
from hpsearch.workflows.image_pairs import (
    area_under_errors,
    average_precision_over,
    corner_error,
    matching_accuracy,
    score_pair,
)


def drawn(n: int, seed: int = 0) -> Keypoints:
    rng = np.random.default_rng(seed)
    return Keypoints(
        rng.uniform(0, 400, (n, 2)), rng.uniform(2, 9, n), rng.uniform(-np.pi, np.pi, n)
    )


def turned(points: Keypoints, angle: float, scale: float) -> tuple[Keypoints, np.ndarray]:
    """The points after a similarity, and its homography."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    h = np.array([[c, -s, 30], [s, c, 7], [0, 0, 1]])
    return Keypoints(project(h, points.xy), scale * points.sigma, points.angle + angle), h


def test_points_that_a_similarity_maps_are_all_consistent_and_found() -> None:
    first = drawn(40)
    second, h = turned(first, 0.7, 1.6)
    distances = 1 - np.eye(40)
    found = score_pair(first, second, h, distances)
    assert found.possible == found.consistent == 40
    assert found[2:] == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("change", "consistent"), [("angle", 0), ("sigma", 0), ("little", 40), ("place", 0)]
)
def test_what_a_consistent_point_must_have(change: str, consistent: int) -> None:
    first = drawn(40)
    second, h = turned(first, -1.1, 0.8)
    if change == "angle":
        second = second._replace(angle=second.angle + np.deg2rad(26))
    if change == "sigma":
        second = second._replace(sigma=1.5 * second.sigma)
    if change == "little":
        second = second._replace(
            sigma=1.4 * second.sigma, angle=second.angle + 2 * np.pi - np.deg2rad(24)
        )
    if change == "place":
        second = second._replace(xy=second.xy + np.array([3.1, 500]))
    found = score_pair(first, second, h, 1 - np.eye(40))
    assert found.consistent == consistent
    assert found.possible == (0 if change == "place" else 40)
    assert np.isnan(found.consistent_recall) == (consistent == 0)


def test_the_jacobian_of_a_homography_gives_scale_and_angle() -> None:
    """By differences: where two nearby points of the first picture go."""
    first = drawn(30, seed=4)
    h = np.array([[1.1, 0.2, 5], [-0.1, 0.9, 3], [4e-4, -2e-4, 1]])
    step = 1e-4 * np.column_stack([np.cos(first.angle), np.sin(first.angle)])
    moved = project(h, first.xy + step) - project(h, first.xy - step)
    other = np.column_stack([-step[:, 1], step[:, 0]])
    across = project(h, first.xy + other) - project(h, first.xy - other)
    area = np.abs(moved[:, 0] * across[:, 1] - moved[:, 1] * across[:, 0]) / (4 * 1e-8)
    second = Keypoints(
        project(h, first.xy), first.sigma * np.sqrt(area), np.arctan2(moved[:, 1], moved[:, 0])
    )
    edges = (second._replace(sigma=second.sigma * 1.41), second._replace(sigma=second.sigma * 1.42))
    counts = [score_pair(first, s, h, 1 - np.eye(30), radius=0.01).consistent for s in edges]
    assert counts == [30, 0]
    angles = [np.deg2rad(24.9), np.deg2rad(25.1)]
    turns = [second._replace(angle=second.angle + a) for a in angles]
    counts = [score_pair(first, s, h, 1 - np.eye(30), radius=0.01).consistent for s in turns]
    assert counts == [30, 0]


def test_average_precision_by_a_slow_loop() -> None:
    rng = np.random.default_rng(2)
    correct, relevant = rng.random(50) < 0.6, rng.random(50) < 0.7
    ratio = rng.random(50)
    found, total, hits = 0, 0.0, 0
    for i in sorted(range(50), key=lambda i: ratio[i]):
        if relevant[i]:
            found += 1
            if correct[i]:
                hits += 1
                total += hits / found
    assert average_precision_over(correct, ratio, relevant) == pytest.approx(total / relevant.sum())
    assert np.isnan(average_precision_over(correct, ratio, np.zeros(50, bool)))


def test_matching_accuracy_counts_matches_within_each_distance() -> None:
    here = np.array([[10.0, 20], [30, 5], [7, 7], [1, 1]])
    shift = np.array([[1, 0, 5], [0, 1, -2], [0, 0, 1]])
    there = here + np.array([5, -2]) + np.array([[0, 0], [3, 4], [0, 9.5], [0, 50]])
    expected = [1 / 4] * 4 + [2 / 4] * 5 + [3 / 4]
    np.testing.assert_allclose(matching_accuracy(here, there, shift), expected)
    assert matching_accuracy(here[:0], there[:0], shift).sum() == 0


def test_the_corner_error_is_a_mean_over_four_corners() -> None:
    true = np.eye(3)
    moved = np.array([[1, 0, 3], [0, 1, 4], [0, 0, 1]])
    assert corner_error(moved, true, 640, 480) == pytest.approx(5)
    wider = np.diag([1.01, 1, 1])  # the two right corners move by 6.4
    assert corner_error(wider, true, 640, 480) == pytest.approx(3.2)
    assert corner_error(None, true, 640, 480) == np.inf


def test_the_area_is_that_under_the_share_of_smaller_errors() -> None:
    errors = [0.4, 2.5, 7.0, np.inf]
    fine = np.linspace(0, 5, 100_001)
    share = np.mean([fine >= e for e in errors], axis=0)
    found = np.mean([area_under_errors(e, 5) for e in errors])
    assert found == pytest.approx(share.mean(), abs=1e-4)
