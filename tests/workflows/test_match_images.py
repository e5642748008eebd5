"""Matching of photographs: two views of one picture whose homography is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpsearch.data.builtin_sets import photograph
from hpsearch.data.keypoint_files import read_keypoints
from hpsearch.data.photo_synthesis import project, viewpoint_target
from hpsearch.errors import UserError
from hpsearch.workflows import match_images as matching
from hpsearch.workflows.match_images import (
    draw_matches,
    estimate_fundamental,
    estimate_homography,
    match_arrays,
    match_descriptors,
    match_images,
    match_table,
    save_colmap,
)

HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph, another view of it, and the homography in the field's coordinates."""
    folder = tmp_path_factory.mktemp("pair")
    photo = np.asarray(Image.fromarray(photograph("coffee")).reduce(2))
    moved, h = viewpoint_target(photo, severity=0.6, rng=np.random.default_rng(5))
    Image.fromarray(photo).save(folder / "a.png")
    Image.fromarray(moved).save(folder / "b.png")
    np.savetxt(folder / "H", np.linalg.inv(HALF) @ h @ HALF)
    np.save(folder / "h.npy", h)
    return folder


@pytest.mark.parametrize("model", ["hpsearch-base", "rootsift"])
def test_the_homography_of_a_pair_is_found(pair: Path, model: str) -> None:
    found = match_images(
        pair / "a.png", pair / "b.png", model=model, points=150, homography=pair / "H"
    )
    true = np.load(pair / "h.npy")
    assert found.homography is not None
    corners = np.array([[30, 30], [200, 40], [150, 150]], float)
    apart = np.linalg.norm(project(found.homography, corners) - project(true, corners), axis=1)
    assert apart.max() < 3
    here, there = found.places()
    assert found.correct is not None
    expected = np.linalg.norm(project(true, here) - there, axis=1) <= 3
    assert np.array_equal(found.correct, expected)
    assert found.correct.sum() >= 20
    assert (found.correct == found.inliers).mean() > 0.8
    picture = draw_matches(found)
    assert picture.width > found.first.gray.shape[1] + found.second.gray.shape[1]
    arrays = match_arrays(found)
    assert arrays["first_keypoints"].shape == (len(found.first.descriptors), 4)
    assert arrays["matches"].max(0).tolist() < [len(found.first.descriptors) + 1, 10**6]


def test_mutual_neighbors_by_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(30, 8)), rng.normal(size=(25, 8))
    distance = np.linalg.norm(a[:, None] - b, axis=2)
    expected = {}
    for i in range(30):
        j = int(distance[i].argmin())
        first, second = sorted(distance[i])[:2]
        if distance[:, j].argmin() == i and first / second <= 0.95:
            expected[i] = (j, first / second)
    pairs, ratios = match_descriptors(a, b, ratio=0.95)
    assert {int(i): int(j) for i, j in pairs} == {i: j for i, (j, _) in expected.items()}
    np.testing.assert_allclose(ratios, [expected[int(i)][1] for i in pairs[:, 0]])
    assert (np.diff(ratios) >= 0).all()
    assert len(match_descriptors(a, b, ratio=1.0)[0]) >= len(pairs)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (5, 1), (0, 3)])
def test_few_descriptors_are_no_error(n: int, m: int) -> None:
    rng = np.random.default_rng(1)
    pairs, ratios = match_descriptors(rng.normal(size=(n, 4)), rng.normal(size=(m, 4)), ratio=1)
    assert len(pairs) == len(ratios) <= min(n, m)


def test_a_homography_needs_four_matches_that_agree() -> None:
    few = np.zeros((3, 2))
    assert estimate_homography(few, few)[0] is None
    rng = np.random.default_rng(0)
    here = rng.uniform(0, 500, (60, 2))
    true = np.array([[1.1, 0.05, 10], [-0.03, 0.95, 5], [1e-5, 2e-5, 1]])
    there = project(true, here)
    there[:25] = rng.uniform(0, 500, (25, 2))
    h, inliers = estimate_homography(here, there)
    assert h is not None
    np.testing.assert_allclose(project(h, here[25:]), there[25:], atol=0.5)
    assert inliers[25:].all()
    assert inliers[:25].sum() <= 2


@pytest.fixture
def estimator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Library that estimates; OpenCV is optional."""
    if request.param == "opencv":
        pytest.importorskip("cv2", reason="the optional package OpenCV is not installed")
    monkeypatch.setattr(matching, "has_opencv", lambda: request.param == "opencv")


def epipolar_distances(f: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Distances of the second places from the epipolar lines of the first."""
    lines = np.column_stack([here, np.ones(len(here))]) @ f.T
    over = (lines * np.column_stack([there, np.ones(len(there))])).sum(1)
    return np.abs(over) / np.hypot(lines[:, 0], lines[:, 1])


@pytest.mark.parametrize("estimator", ["opencv", "scikit-image"], indirect=True)
def test_the_fundamental_matrix_of_two_cameras_is_found(estimator: None) -> None:
    """Points in space, seen by two cameras whose matrix follows from their poses."""
    rng = np.random.default_rng(4)
    k = np.array([[600, 0, 320], [0, 600, 240], [0, 0, 1]], float)
    c, s = np.cos(0.15), np.sin(0.15)
    turn, shift = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), np.array([-1.0, 0.1, 0.2])
    space = rng.uniform([-2, -1.5, 4], [2, 1.5, 9], (150, 3))
    views = space @ k.T, (space @ turn.T + shift) @ k.T
    here, there = (v[:, :2] / v[:, 2:] for v in views)
    cross = np.array([[0, -shift[2], shift[1]], [shift[2], 0, -shift[0]], [-shift[1], shift[0], 0]])
    true = np.linalg.inv(k).T @ cross @ turn @ np.linalg.inv(k)
    assert epipolar_distances(true, here, there).max() < 1e-9
    seen = there + 0.2 * rng.standard_normal(there.shape)
    seen[:50] = rng.uniform([0, 0], [640, 480], (50, 2))
    f, inliers = estimate_fundamental(here, seen)
    assert f is not None
    assert np.linalg.norm(f) == pytest.approx(1)
    assert abs(np.linalg.det(f)) < 1e-9
    assert inliers[50:].mean() > 0.95
    assert (epipolar_distances(true, here, seen)[inliers] < 5).all()
    assert epipolar_distances(f, here[50:], there[50:]).max() < 1.5
    again, _ = estimate_fundamental(here, seen)
    np.testing.assert_array_equal(f, again)


@pytest.mark.parametrize("estimator", ["opencv", "scikit-image"], indirect=True)
def test_seven_matches_have_no_fundamental_matrix(estimator: None) -> None:
    few = np.random.default_rng(0).uniform(0, 300, (7, 2))
    f, inliers = estimate_fundamental(few, few + 3)
    assert f is None
    assert inliers.tolist() == [False] * 7
    same = np.zeros((20, 2))
    for estimate in (estimate_fundamental, estimate_homography):
        matrix, inliers = estimate(same, same)
        assert matrix is None or np.isfinite(matrix).all()
        assert inliers.shape == (20,)


def test_a_scene_with_depth_needs_the_fundamental_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A near square before a far picture, and a camera that moves to its right."""
    far = np.asarray(Image.fromarray(photograph("coffee")).reduce(2))
    near = np.asarray(Image.fromarray(photograph("chelsea")).reduce(2))[:110, 60:170]
    for name, far_shift, near_shift in (("a", 8, 60), ("b", 20, 20)):
        scene = far[:, far_shift : far_shift + 270].copy()
        scene[60:170, near_shift : near_shift + 110] = near
        Image.fromarray(scene).save(tmp_path / f"{name}.png")
    files = tmp_path / "a.png", tmp_path / "b.png"
    monkeypatch.setattr(matching, "has_opencv", lambda: False)
    plane = match_images(*files, model="rootsift", points=300)
    found = match_images(*files, model="rootsift", points=300, geometry="fundamental")
    assert found.homography is None
    assert plane.fundamental is None
    assert found.fundamental is not None
    level_lines = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]]) / np.sqrt(2)
    assert abs((found.fundamental * level_lines).sum()) > 0.99
    assert match_arrays(found)["fundamental"].shape == (3, 3)
    assert "fundamental" not in match_arrays(plane)
    here, there = found.places()
    moved = here[:, 0] - there[:, 0]
    level = np.abs(here[:, 1] - there[:, 1]) < 0.5
    of_plane = [level & (np.abs(moved - shift) < 0.5) for shift in (12, 40)]
    assert all(matches.sum() >= 10 for matches in of_plane)
    assert all(found.inliers[matches].mean() > 0.9 for matches in of_plane)
    assert min(plane.inliers[matches].mean() for matches in of_plane) < 0.1
    assert found.inliers.sum() > plane.inliers.sum()


@pytest.mark.parametrize("detector", ["hpsearch", "opencv"])
def test_detectors_and_estimators_find_the_homography(
    pair: Path, detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if detector == "opencv":
        pytest.importorskip("cv2", reason="the optional package OpenCV is not installed")
    else:
        monkeypatch.setattr(matching, "has_opencv", lambda: False)
    files = pair / "a.png", pair / "b.png"
    found = match_images(
        *files, model="rootsift", points=150, detector=detector, homography=pair / "H"
    )
    again = match_images(*files, model="rootsift", points=150, detector=detector)
    assert found.homography is not None
    assert again.homography is not None
    np.testing.assert_array_equal(found.homography, again.homography)
    corners = np.array([[30, 30], [200, 40], [150, 150]], float)
    true = np.load(pair / "h.npy")
    apart = np.linalg.norm(project(found.homography, corners) - project(true, corners), axis=1)
    assert apart.max() < 5
    assert found.correct is not None
    assert found.correct.sum() >= 15


def test_files_for_colmap_hold_what_was_matched(pair: Path, tmp_path: Path) -> None:
    found = match_images(pair / "a.png", pair / "b.png", model="rootsift", points=40)
    save_colmap(found, tmp_path / "colmap", ("a.png", "b.png"))
    head, *rows = (tmp_path / "colmap" / "a.png.txt").read_text().splitlines()
    assert head == f"{len(found.first.descriptors)} 128"
    numbers = np.array([row.split() for row in rows], float)
    np.testing.assert_allclose(numbers[:, :2], found.first.keypoints.xy, atol=1e-6)
    assert numbers.shape[1] == 132
    assert numbers[:, 4:].min() >= 0
    assert numbers[:, 4:].max() == 255
    names, *pairs, empty = (tmp_path / "colmap" / "matches.txt").read_text().split("\n")[:-1]
    assert (names, empty) == ("a.png b.png", "")
    assert [list(map(int, line.split())) for line in pairs] == found.matches.tolist()
    read = read_keypoints(tmp_path / "colmap" / "a.png.txt")
    np.testing.assert_allclose(read.angle, found.first.keypoints.angle, atol=1e-6)
    assert match_table(found).count("\n") == len(found.matches) + 1
    with pytest.raises(UserError, match="rename one"):
        save_colmap(found, tmp_path, ("a.png", "a.png"))


def test_a_homography_of_other_pictures_is_refused(pair: Path, tmp_path: Path) -> None:
    files = pair / "a.png", pair / "b.png"
    for text, sentence in (
        ("1 0 5000\n0 1 0\n0 0 1", "outside"),
        ("1 2 3\n2 4 6\n0 0 1", "singular"),
    ):
        (tmp_path / "H").write_text(text)
        with pytest.raises(UserError, match=sentence):
            match_images(*files, model="rootsift", points=20, homography=tmp_path / "H")
    with pytest.raises(UserError, match="there is no file"):
        match_images(*files, model="rootsift", homography=tmp_path / "none")


def test_pictures_of_one_pixel_are_refused_and_alpha_is_dropped(pair: Path, tmp_path: Path) -> None:
    Image.new("L", (1, 1), 90).save(tmp_path / "one.png")
    with pytest.raises(UserError, match=r"one\.png has no keypoints"):
        match_images(tmp_path / "one.png", pair / "b.png", model="rootsift", points=20)
    with Image.open(pair / "a.png") as picture:
        picture.convert("RGBA").save(tmp_path / "alpha.png")
        deep = np.asarray(picture).astype(np.uint16) * 256
    Image.fromarray(deep).save(tmp_path / "deep.png")
    for name in ("alpha.png", "deep.png"):
        found = match_images(tmp_path / name, pair / "a.png", model="rootsift", points=20)
        assert (found.first.gray == found.second.gray).all()


def test_bad_input_is_named(pair: Path, tmp_path: Path) -> None:
    Image.new("L", (300, 300), 90).save(tmp_path / "flat.png")
    for first, sentence in (
        (tmp_path / "none.png", "there is no file"),
        (tmp_path, "is a folder, and a file is needed"),
        (tmp_path / "flat.png", "has no keypoints"),
        (pair / "H", "cannot be decoded"),
    ):
        with pytest.raises(UserError, match=sentence):
            match_images(first, pair / "b.png", model="rootsift", points=20)
    with pytest.raises(UserError, match="is not a model"):
        match_images(pair / "a.png", pair / "b.png", model="nothing", home=tmp_path)
