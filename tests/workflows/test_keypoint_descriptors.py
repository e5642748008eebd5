"""Descriptors of detected keypoints, and of one's own."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hpsearch.data.builtin_sets import photograph
from hpsearch.data.photo_keypoints import detect
from hpsearch.defaults import BUILT_IN_MODELS
from hpsearch.errors import UserError
from hpsearch.models.onnx_export import export_onnx
from hpsearch.models.serialization import load_pipeline
from hpsearch.workflows.keypoint_descriptors import (
    describe_keypoints,
    detect_inside,
    load_descriptor_function,
)


def test_keypoints_of_opencv_are_described_as_ours() -> None:
    gray = np.asarray(Image.fromarray(photograph("chelsea")).reduce(3))
    points = detect(gray.astype(np.float32), limit=8)
    found = describe_keypoints(gray, points)
    assert found.shape == (len(points.xy), 128)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    rows = np.column_stack([points.xy - 0.5, 2 * points.sigma, np.rad2deg(points.angle)])
    np.testing.assert_allclose(describe_keypoints(gray, rows), found, atol=2e-3)
    objects = [SimpleNamespace(pt=(x, y), size=size, angle=a) for x, y, size, a in rows]
    np.testing.assert_allclose(describe_keypoints(gray, objects), found, atol=2e-3)
    outside = np.array([[5, 5, 8, 0], [gray.shape[1] + 1, 5, 8, 0]])
    with pytest.raises(UserError, match="keypoint 2 at"):
        describe_keypoints(gray, outside)
    at_the_border = describe_keypoints(gray, outside[:1], model="rootsift")
    assert at_the_border.shape == (1, 128)
    assert load_pipeline(BUILT_IN_MODELS["hpsearch-base"]).training is False


def test_a_keypoint_much_larger_than_its_picture_is_refused() -> None:
    gray = np.zeros((40, 60), np.uint8)
    with pytest.raises(UserError, match="keypoint 2 has the size 1e\\+09"):
        describe_keypoints(gray, np.array([[5, 5, 120, 0], [5, 5, 1e9, 0]]), model="rootsift")
    assert describe_keypoints(gray, np.array([[5, 5, 120, 0]]), model="rootsift").shape == (1, 128)


def test_opencv_counts_keypoints_as_its_layout_is_read() -> None:
    """A blob of OpenCV's own detector is where the picture has it, and as large."""
    pytest.importorskip("cv2", reason="the optional package OpenCV is not installed")
    y, x = np.indices((200, 240)) + 0.5
    blob = 40 + 200 * np.exp(-((x - 130.5) ** 2 + (y - 90.5) ** 2) / (2 * 6.0**2))
    found = detect_inside(blob.astype(np.uint8), "blob", 1, detector="opencv")
    assert np.abs(found.xy[0] - [130.5, 90.5]).max() < 1
    assert found.sigma[0] == pytest.approx(6, rel=0.15)


def test_several_orientations_make_several_keypoints_of_one_point() -> None:
    gray = np.asarray(Image.fromarray(photograph("coffee")).reduce(2)).astype(np.float32)
    one, several = detect(gray, limit=60), detect(gray, limit=60, peak_share=0.8)
    assert len(one.xy) == 60
    assert len(several.xy) > 60
    places = np.unique(np.column_stack([several.xy, several.sigma]), axis=0)
    assert len(places) == len(np.unique(np.column_stack([one.xy, one.sigma]), axis=0))
    rows = np.column_stack([several.xy, several.sigma, several.angle]).tolist()
    assert all(row in rows for row in np.column_stack([one.xy, one.sigma, one.angle]).tolist())


@pytest.mark.parametrize("shape", [(1, 1), (15, 200), (20, 20)])
def test_small_pictures_have_no_points(shape: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="has no keypoints"):
        detect_inside(np.full(shape, 90, np.uint8), "small.png", 10)


def test_an_onnx_file_describes_as_its_model(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the optional package onnxruntime is not installed")
    pipeline = load_pipeline(BUILT_IN_MODELS["hpsearch-base"])
    export_onnx(pipeline, tmp_path / "base.onnx", metadata={})
    patches = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    found = load_descriptor_function(str(tmp_path / "base.onnx"))(patches)
    expected = load_descriptor_function("hpsearch-base")(patches)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"bad\.onnx is not an ONNX descriptor"):
        load_descriptor_function(str(tmp_path / "bad.onnx"))
