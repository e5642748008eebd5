"""Arrays of patches with the point of each, as a user cuts them from tracks."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.data.array_import import ArraySettings, import_arrays
from hpsearch.data.arrow_header import NoiseLevels
from hpsearch.data.images import area_downsample, halve
from hpsearch.errors import UserError

CLEAN = ArraySettings(noise=NoiseLevels(easy=0, hard=0, tough=0))


def save(folder: Path, **arrays: np.ndarray) -> dict[str, Path]:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return {name: folder / f"{name}.npy" for name in arrays}


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(-3, 3), st.sampled_from("ab")), min_size=1, max_size=30))
def test_patches_are_grouped_by_sequence_and_point(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("arrays")
    patches = np.arange(len(labels), dtype=np.uint8)[:, None, None] + np.zeros((32, 32), np.uint8)
    files = save(
        folder,
        patches=patches,
        points=np.array([point for point, _ in labels]),
        names=np.array([name for _, name in labels]),
    )
    store = import_arrays(
        files["patches"], folder / "s", points=files["points"], sequences=files["names"],
        settings=CLEAN,
    )  # fmt: skip
    store.verify()
    sequences = list(dict.fromkeys(name for _, name in labels))
    assert list(store.names) == sequences
    expected, views = [], []
    for sequence in sequences:
        for point in dict.fromkeys(p for p, name in labels if name == sequence):
            rows = [i for i, label in enumerate(labels) if label == (point, sequence)]
            expected += rows
            views.append(len(rows))
    assert store.clean_rows[:, 0, 0].tolist() == expected
    assert np.diff(store.first_rows).tolist() == views


@pytest.mark.parametrize(("side", "reduce"), [(64, halve), (65, area_downsample)])
def test_larger_patches_are_reduced_as_those_of_the_data_sets(side, reduce, tmp_path):
    patches = np.random.default_rng(0).integers(0, 256, (6, side, side), np.uint8)
    files = save(tmp_path, mine=patches, ids=np.array(["x", "y"] * 3))
    store = import_arrays(files["mine"], tmp_path / "s", points=files["ids"], settings=CLEAN)
    assert store.names == ("mine",)
    np.testing.assert_array_equal(store.clean_rows, reduce(patches[[0, 2, 4, 1, 3, 5]]))


PATCHES, IDS = np.zeros((4, 32, 32), np.uint8), np.zeros(4, int)
PROBLEMS: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray, str]] = {
    "shape": (PATCHES[:, :31], IDS, IDS.astype(str), "patches.npy has the shape 4×31×32"),
    "none": (PATCHES[:0], IDS[:0], IDS[:0].astype(str), "patches.npy has the shape 0×32×32"),
    "type": (PATCHES.astype(float), IDS, IDS.astype(str), "patches.npy holds float64"),
    "short ids": (PATCHES, IDS[:3], IDS.astype(str), "points.npy has 3 values, but .* 4 patches"),
    "float ids": (PATCHES, IDS * 0.5, IDS.astype(str), "points.npy holds float64"),
    "numbers as names": (PATCHES, IDS, IDS, "names.npy holds int64; give names"),
    "two columns": (PATCHES, np.zeros((4, 2), int), IDS.astype(str), "points.npy has 4×2 values"),
    "formula": (PATCHES, IDS, np.array(["=1"] * 4), "'=1' cannot be the name of a sequence"),
    "objects": (PATCHES, np.array([{}] * 4), IDS.astype(str), "points.npy is not a usable"),
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=list(PROBLEMS))
def test_arrays_that_do_not_fit_are_refused(problem, tmp_path):
    *arrays, message = problem
    files = save(tmp_path, **dict(zip(("patches", "points", "names"), arrays, strict=True)))
    with pytest.raises(UserError, match=message):
        import_arrays(
            files["patches"], tmp_path / "out" / "s", points=files["points"],
            sequences=files["names"],
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_a_missing_array_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*gone.npy"):
        import_arrays(tmp_path / "gone.npy", tmp_path / "s", points=tmp_path / "ids.npy")
