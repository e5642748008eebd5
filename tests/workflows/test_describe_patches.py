"""Sources of patches that are refused before anything is described."""

from pathlib import Path

import numpy as np
import pytest

from hpsearch.errors import UserError
from hpsearch.workflows.describe_patches import from_array


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 28, 28), np.uint8),
        np.zeros((4, 65, 65), np.float32),
        np.zeros((4, 1, 32, 32), np.uint8),
        np.zeros((32, 32), np.uint8),
        np.zeros((), np.uint8),
        np.zeros((0, 28, 28), np.uint8),
        np.zeros((4, 32, 32), np.complex64),
    ],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_an_array_of_another_shape_or_type_is_named_as_it_is(
    array: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "patches.npy", array)
    with pytest.raises(UserError) as refused:
        from_array(tmp_path / "patches.npy")
    assert refused.value.code == "wrong-patch-shape"
    assert f"shape {array.shape} and the type {array.dtype}" in str(refused.value)
    assert str(refused.value).count("(0,") == (array.shape[:1] == (0,))


def test_an_array_of_patches_is_a_source(tmp_path: Path) -> None:
    np.save(tmp_path / "patches.npy", np.ones((5, 32, 32), np.int64))
    assert from_array(tmp_path / "patches.npy").num_patches == 5
