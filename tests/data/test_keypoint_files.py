"""Keypoints in OpenCV's and COLMAP's layouts."""

from pathlib import Path

import numpy as np
import pytest

from hpsearch.data.keypoint_files import (
    as_keypoints,
    colmap_features,
    opencv_rows,
    read_keypoints,
    to_bytes,
)
from hpsearch.errors import UserError

ROWS = np.array([[10.0, 20, 8, 90], [0, 0.5, 3, -1]])


@pytest.mark.parametrize(
    "text",
    ["10 20 8 90\n0 0.5 3 -1\n", "x,y,size,angle\n10,20,8,90\n\n0,0.5,3,-1\n", "10;20;8;90;7\n"],
)
def test_rows_are_read_as_opencv_counts(text: str, tmp_path: Path) -> None:
    (tmp_path / "k.csv").write_text(text)
    if ";7" in text:  # a fifth number, such as OpenCV's response, is not one of the four
        with pytest.raises(UserError, match="shape"):
            read_keypoints(tmp_path / "k.csv")
        return
    found = read_keypoints(tmp_path / "k.csv")
    np.testing.assert_allclose(found.xy, [[10.5, 20.5], [0.5, 1]])
    np.testing.assert_allclose(found.sigma, [4, 1.5])
    np.testing.assert_allclose(found.angle, [np.pi / 2, 0])
    np.testing.assert_allclose(opencv_rows(found), [[10, 20, 8, 90], [0, 0.5, 3, 0]])
    np.save(tmp_path / "k.npy", ROWS)
    np.testing.assert_allclose(read_keypoints(tmp_path / "k.npy").xy, found.xy)


def test_a_file_of_colmap_is_read_as_its_test_writes_it(tmp_path: Path) -> None:
    """The two features of COLMAP's own test of its reader."""
    numbers = " ".join(str(j) for j in range(128))
    text = f"2 128\n0.5 1.5 2.0 0.1 {numbers}\n10.0 20.0 3.0 1.57 {numbers}\n"
    (tmp_path / "a.jpg.txt").write_text(text)
    found = read_keypoints(tmp_path / "a.jpg.txt")
    np.testing.assert_allclose(found.xy, [[0.5, 1.5], [10, 20]])
    np.testing.assert_allclose(found.sigma, [2, 3])
    np.testing.assert_allclose(found.angle, [0.1, 1.57])
    (tmp_path / "b.txt").write_text(colmap_features(found, np.ones((2, 128))))
    np.testing.assert_allclose(read_keypoints(tmp_path / "b.txt").xy, found.xy)


def test_descriptors_keep_their_order_of_distance_as_bytes() -> None:
    rng = np.random.default_rng(0)
    signed = rng.normal(size=(40, 128))
    bytes_of = to_bytes(signed).astype(float)
    apart = np.linalg.norm(signed[:, None] - signed, axis=2)
    there = np.linalg.norm(bytes_of[:, None] - bytes_of, axis=2)
    assert np.corrcoef(apart.ravel(), there.ravel())[0, 1] > 0.999
    assert to_bytes(np.array([[0, 0.5, 1]])).tolist() == [[0, 128, 255]]


WRONG = {
    "none": ("", "has no keypoints"),
    "words": ("1 2 3 4\nfour words are here\n", "line 2 is not a row"),
    "short": ("1 2 3\n", "line 1 has 3 numbers"),
    "negative": ("1 2 -3 4\n", "keypoint 1 .* positive"),
    "not finite": ("1 2 3 4\n1 nan 3 4\n", "keypoint 2 .* finite"),
    "promise": ("3 128\n1 2 3 4 5\n", "promises 3 features, but has 1"),
    "scale": ("1 128\n1 2 0 4 5\n", "line 2 has no x, y, positive scale"),
    "many": ("1 2 3 4\n1 2 3 4 5\n", "not rows of numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named_with_its_line(name: str, tmp_path: Path) -> None:
    text, sentence = WRONG[name]
    (tmp_path / "k.txt").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_keypoints(tmp_path / "k.txt")
    with pytest.raises(UserError, match="there is no file"):
        read_keypoints(tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"shape \(2, 3\)"):
        as_keypoints(np.ones((2, 3)))
