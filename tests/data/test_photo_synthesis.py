import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from hpsearch.data.photo_keypoints import circle_overlap, detect, drop_overlaps
from hpsearch.data.photo_synthesis import (
    JITTER_OF_LEVEL,
    PhotoSettings,
    extract_patches,
    inside,
    jitters,
    magnification,
    photo_sequence,
    project,
    viewpoint,
)
from hpsearch.errors import UserError


def blobs(size, places, sigma):
    """Gaussian blobs: the scale space of each is known in closed form."""
    y, x = np.indices((size, size)) + 0.5
    image = np.zeros((size, size), np.float32)
    for cx, cy in places:
        image += 200 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    return image


@pytest.mark.parametrize("sigma", [2.0, 4.0, 9.0])
def test_a_blob_is_found_where_it_is_and_as_large_as_it_is(sigma):
    found = detect(blobs(256, [(110.5, 140.25)], sigma), limit=1)
    assert np.abs(found.xy[0] - [110.5, 140.25]).max() < 0.5
    # The scale-normalised Laplacian of a Gaussian blob is largest at the blob's own σ.
    assert found.sigma[0] == pytest.approx(sigma, rel=0.15)


@pytest.mark.parametrize("degrees", [0, 35, 90, 200, 310])
def test_the_angle_turns_with_the_picture(degrees):
    x, y = np.meshgrid(np.arange(256) + 0.5 - 128, np.arange(256) + 0.5 - 128)
    turn = np.deg2rad(degrees)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    image = 100 + 3 * along.clip(-20, 20) + 60 * np.exp(-(along**2 + across**2) / 32)
    found = detect(image.astype(np.float32), limit=20)
    nearest = np.hypot(*(found.xy - 128).T).argmin()
    apart = np.angle(np.exp(1j * (found.angle[nearest] - turn)))
    assert abs(np.rad2deg(apart)) < 12


def test_circle_overlap_agrees_with_counting_pixels():
    y, x = np.indices((400, 400)) / 100 - 2
    for distance, r, s in [(0.0, 1.0, 1.0), (0.5, 1.0, 1.0), (0.9, 1.2, 0.7), (0.2, 1.5, 0.5)]:
        one, two = x**2 + y**2 <= r**2, (x - distance) ** 2 + y**2 <= s**2
        counted = (one & two).sum() / (one | two).sum()
        got = circle_overlap(np.array([distance]), np.array([r]), s)[0]
        assert got == pytest.approx(counted, abs=0.01)
    assert circle_overlap(np.array([5.0]), np.array([1.0]), 1.0)[0] == pytest.approx(0)


@given(st.integers(0, 100))
def test_kept_circles_overlap_by_no_more_than_half(seed):
    rng = np.random.default_rng(seed)
    xy, radius = rng.uniform(0, 10, (60, 2)), rng.uniform(0.5, 3, 60)
    kept = drop_overlaps(xy, radius, limit=40)
    assert kept[0] == 0
    for i in kept:
        others = kept[kept != i]
        apart = np.hypot(*(xy[others] - xy[i]).T)
        assert (circle_overlap(apart, radius[others], radius[i]) <= 0.5).all()


@pytest.mark.parametrize(("level", "documented"), [("e", 0.85), ("h", 0.72), ("t", 0.62)])
def test_jitter_has_the_documented_median_overlap(level, documented):
    """Overlap of the undisturbed with the disturbed unit circle, counted on a grid."""
    maps = np.linalg.inv(jitters(300, JITTER_OF_LEVEL[level], np.random.default_rng(0)))
    grid = np.linspace(-3, 3, 121)
    x, y = np.meshgrid(grid, grid)
    points = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    own = np.hypot(*points[:2]) <= 1
    moved = np.linalg.norm((maps @ points)[:, :2], axis=1) <= 1
    overlap = (own & moved).sum(1) / (own | moved).sum(1)
    assert np.median(overlap) == pytest.approx(documented, abs=0.03)


def test_a_viewpoint_shows_the_whole_photograph():
    for seed in range(20):
        h, (width, height) = viewpoint(640, 400, severity=1, rng=np.random.default_rng(seed))
        corners = project(h, np.array([[0, 0], [640, 0], [640, 400], [0, 400]], float))
        assert np.abs(corners.min(0)).max() < 1e-6
        assert (corners.max(0) <= [width, height]).all()
        assert (corners.max(0) > np.array([width, height]) - 1).all()


def test_magnification_is_the_numerical_area_ratio():
    h, _ = viewpoint(300, 200, severity=1, rng=np.random.default_rng(3))
    step = 1e-4
    o, a, b = project(h, np.array([[0, 0], [step, 0], [0, step]]))
    area = np.abs(np.linalg.det(np.stack([a - o, b - o]))) / step**2
    assert magnification(h[None])[0] == pytest.approx(np.sqrt(area), rel=1e-3)


def test_a_cut_at_one_pixel_a_sample_is_the_picture_itself():
    picture = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    place = np.array([[32.5, 0, 100 + 32.5], [0, 32.5, 40 + 32.5], [0, 0, 1]])
    np.testing.assert_array_equal(
        extract_patches(picture, place[None])[0], picture[40:105, 100:165]
    )


def test_large_patches_do_not_alias():
    stripes = np.zeros((400, 400), np.uint8)
    stripes[:, ::2] = 255
    place = np.array([[160.0, 0, 200], [0, 160.0, 200], [0, 0, 1]])
    assert extract_patches(stripes, place[None])[0].std() < 5
    assert ndimage.laplace(stripes.astype(float)).std() > 100


def test_inside_looks_at_the_corners():
    maps = np.array([np.diag([10.0, 10, 1])] * 2)
    maps[:, :2, 2] = [[20, 20], [20, 12.5]]
    assert inside(maps, 100, 100, margin=3).tolist() == [True, False]


def test_a_picture_without_space_for_a_patch_is_refused():
    with pytest.raises(UserError, match="no patch fits into 'i_x'"):
        photo_sequence(np.zeros((40, 40), np.uint8), name="i_x", settings=PhotoSettings())
