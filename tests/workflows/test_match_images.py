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
    moved, h = viewpoint_target(photo, severity=0.6, rng=np.random.default_rng(3))
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
        (tmp_path / "flat.png", "has no keypoints"),
        (pair / "H", "cannot be decoded"),
    ):
        with pytest.raises(UserError, match=sentence):
            match_images(first, pair / "b.png", model="rootsift", points=20)
    with pytest.raises(UserError, match="is not a model"):
        match_images(pair / "a.png", pair / "b.png", model="nothing", home=tmp_path)
