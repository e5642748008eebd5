"""Views that a detector makes, against homographies that are known."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hpsearch.cli import main
from hpsearch.data.builtin_sets import photograph
from hpsearch.data.detected_views import (
    DetectedViewSettings,
    detected_sequence,
    match_detections,
    moved_keypoints,
    select_keypoints,
    warped_pictures,
)
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.photo_folder import import_photos
from hpsearch.data.photo_keypoints import Keypoints, detect
from hpsearch.data.photo_synthesis import project, viewpoint
from hpsearch.errors import UserError

FEW = DetectedViewSettings(points=40, warps=3)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.fromarray(photograph("chelsea")).reduce(2))


@pytest.fixture(scope="module")
def points(photo) -> Keypoints:
    return detect(photo.astype(np.float32), limit=80)


def test_identity_warps_give_back_every_point(photo, monkeypatch):
    """Each point is found again in each copy of the photograph, so its views are equal."""
    pairs = [(photo, np.eye(3))] * 3
    monkeypatch.setattr("hpsearch.data.detected_views.warped_pictures", lambda *_: pairs)
    found = detected_sequence(photo, name="i_a", settings=FEW)
    assert found.views is not None
    assert found.views.counts.tolist() == [4] * 40
    views = found.clean.reshape(40, 4, 32, 32)
    np.testing.assert_array_equal(views, views[:, :1].repeat(4, axis=1))
    assert (found.noisy != found.clean).any(axis=(1, 2)).all()


def numeric_jacobian(h: np.ndarray, xy: np.ndarray) -> np.ndarray:
    step = 1e-4
    columns = [(project(h, xy + d) - project(h, xy - d)) / (2 * step) for d in np.eye(2) * step]
    return np.stack(columns, axis=-1)


@pytest.mark.parametrize("warp", [0, 1, 2])
def test_every_view_lies_where_the_homography_asks(photo, points, warp):
    """Place, scale and angle, with the Jacobian by finite differences."""
    settings = DetectedViewSettings(warps=3, tilt=75)
    picture, h = list(warped_pictures(photo, "v_a", settings))[warp]
    found = detect(picture.astype(np.float32), limit=160, peak_share=0.8)
    point, detection = match_detections(points, found, h, settings.place_share)
    assert len(point) >= 10
    assert len(set(point)) == len(set(detection)) == len(point)
    here, there = select_keypoints(points, point), select_keypoints(found, detection)
    jacobian = numeric_jacobian(h, here.xy)
    sigma = here.sigma * np.sqrt(np.linalg.det(jacobian))
    apart = np.linalg.norm(project(h, here.xy) - there.xy, axis=1)
    assert (apart <= np.maximum(3, sigma)).all()
    assert (np.maximum(sigma / there.sigma, there.sigma / sigma) <= np.sqrt(2) * 1.001).all()
    x, y = np.einsum("nij,jn->in", jacobian, [np.cos(here.angle), np.sin(here.angle)])
    turn = np.angle(np.exp(1j * (np.arctan2(y, x) - there.angle)))
    assert (np.abs(np.rad2deg(turn)) <= 25.01).all()


@given(
    seed=st.integers(0, 2**20), severity=st.floats(0.2, 1.3), away=st.floats(0, 1),
    scale=st.floats(-1, 1), turn=st.floats(-1, 1),
)  # fmt: skip
def test_a_detection_counts_up_to_the_limits_and_not_beyond(
    points, seed, severity, away, scale, turn
):
    h, _ = viewpoint(225, 150, severity=severity, rng=np.random.default_rng(seed))
    one = select_keypoints(points, np.array([seed % len(points.sigma)]))
    moved = moved_keypoints(one, h)
    limit = max(3.0, float(0.5 * moved.sigma[0]))

    def displaced(factor: float) -> Keypoints:
        direction = np.array([np.cos(seed), np.sin(seed)])
        return Keypoints(
            moved.xy + factor * away * limit * direction,
            moved.sigma * np.sqrt(2) ** (factor * scale),
            moved.angle + factor * turn * np.deg2rad(25) + 2 * np.pi * (seed % 3 - 1),
        )

    assert len(match_detections(one, displaced(0.99), h, 0.5)[0]) == 1
    if max(away, abs(scale), abs(turn)) > 0.1:
        assert len(match_detections(one, displaced(11), h, 0.5)[0]) == 0


def test_one_detection_is_a_view_of_the_nearest_point_alone():
    near = Keypoints(np.array([[50, 50], [51, 50], [90, 50.0]]), np.full(3, 4.0), np.zeros(3))
    found = select_keypoints(near, np.array([1]))
    point, detection = match_detections(near, found, np.eye(3), 1.0)
    assert (point.tolist(), detection.tolist()) == ([1], [0])
    point, detection = match_detections(found, near, np.eye(3), 1.0)
    assert (point.tolist(), detection.tolist()) == ([0], [1])


def test_warps_go_as_far_as_the_setting_and_are_those_of_the_seed(photo):
    def shrinkage(tilt: float, seed: int = 0) -> list[float]:
        settings = DetectedViewSettings(warps=6, tilt=tilt, seed=seed)
        corner = np.array([photo.shape[::-1]]) / 2
        pairs = warped_pictures(photo, "v_a", settings)
        values = [np.linalg.svd(numeric_jacobian(h, corner)[0])[1] for _, h in pairs]
        return [float(b / a) for a, b in values]

    mild, far = shrinkage(20), shrinkage(70)
    assert min(mild) >= np.cos(np.deg2rad(20)) - 0.01
    assert min(far) < 0.7
    assert all(f < m for f, m in zip(far, mild, strict=True))
    assert shrinkage(20) == mild != shrinkage(20, seed=1)


@pytest.fixture
def folder(tmp_path, photo) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, picture in (("a", photo), ("b", photo[::-1]), ("flat", np.full_like(photo, 90))):
        Image.fromarray(picture).save(folder / f"{name}.png")
    return folder


def test_a_store_has_the_views_that_were_found_on_any_number_of_workers(folder, tmp_path):
    calls = []
    made = import_photos(
        folder, tmp_path / "s.arrow", settings=FEW, workers=1, progress=lambda *a: calls.append(a)
    )
    assert [done for done, total, _ in calls if total == 3] == [0, 1, 2, 3]
    assert [Path(file).name for file in made.skipped] == ["flat.png"]
    made.store.verify()
    assert not made.store.has_levels
    views = np.diff(made.store.first_rows)
    assert (views.min(), views.max()) == (2, 4)
    again = import_photos(folder, tmp_path / "t.arrow", settings=FEW, workers=2)
    assert again.store.fingerprint == made.store.fingerprint
    other = FEW.model_copy(update={"seed": 1})
    assert import_photos(folder, tmp_path / "u", settings=other, workers=1).store.fingerprint != (
        made.store.fingerprint
    )


def test_a_picture_without_structure_is_refused():
    noise = np.full((200, 200), 90, np.uint8)
    with pytest.raises(UserError, match="no point of 'i_a'"):
        detected_sequence(noise, name="i_a", settings=FEW)


def test_the_command_takes_the_views_and_refuses_what_does_not_fit(
    folder, tmp_path, monkeypatch, capsys
):
    def run(*words: str) -> int:
        given = ["data", "photos", str(folder), "-o", str(tmp_path / "s.arrow"), "--points", "40"]
        monkeypatch.setattr(sys, "argv", ["hpsearch", *given, "--workers", "1", *words])
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    assert run("--tilt", "70") == 2
    assert "--views detected" in capsys.readouterr().err
    assert run("--views", "detected", "--tilt", "89") == 2
    assert not (tmp_path / "s.arrow").exists()
    assert run("--views", "detected", "--warps", "3") == 0
    assert "without levels" in capsys.readouterr().out
    store = PatchStore.open(tmp_path / "s.arrow")
    assert (
        store.fingerprint == import_photos(folder, tmp_path / "t", settings=FEW).store.fingerprint
    )
