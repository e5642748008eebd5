"""Sequences of pictures with known homographies, built here from one photograph."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpsearch.data.builtin_sets import photograph
from hpsearch.data.image_sequences import (
    SequenceSettings,
    find_sequences,
    import_sequences,
    load_sequence,
)
from hpsearch.data.photo_synthesis import PhotoSettings, _target_images, photo_sequence
from hpsearch.errors import UserError

FEW = SequenceSettings(points=12)
HALF = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
"""From coordinates whose integers are centers of pixels to those in which pixel i is [i, i + 1]."""


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Image.fromarray(photograph("chelsea")).reduce(2))


@pytest.fixture(scope="module")
def built(photo: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sequence in HPatches' naming, and one in Oxford's, a folder deeper."""
    root = tmp_path_factory.mktemp("sequences")
    hpatches, oxford = root / "v_cat", root / "more" / "wall"
    for folder, picture, homography in (
        (hpatches, "{}.ppm", "H_1_{}"),
        (oxford, "img{}.PNG", "H1to{}p"),
    ):
        folder.mkdir(parents=True)
        Image.fromarray(photo).save(folder / picture.format(1))
        for number, (target, h) in enumerate(_target_images(photo, "v_cat", 0), start=2):
            Image.fromarray(target).save(folder / picture.format(number))
            np.savetxt(folder / homography.format(number), np.linalg.inv(HALF) @ h @ HALF)
    return root


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built / "v_cat", tmp_path / "v_cat"))


def test_patches_are_those_cut_through_the_same_homographies(
    built: Path, photo: np.ndarray, tmp_path: Path
) -> None:
    """The synthesis of photographs made the pictures, and cuts its patches from them itself."""
    settings = SequenceSettings(points=30)  # both detect 120 points, for which jitter is drawn
    made = import_sequences(built / "v_cat", tmp_path / "s.arrow", settings=settings, workers=1)
    found = made.store
    expected = photo_sequence(photo, name="v_cat", settings=PhotoSettings(points=60))
    assert found.names == ("v_cat",)
    by_reference = {ref.tobytes(): number for number, ref in enumerate(expected.clean[:, 0])}
    common = [
        (i, by_reference[ref.tobytes()])
        for i, ref in enumerate(found.clean[:, 0])
        if ref.tobytes() in by_reference
    ]
    assert len(common) >= 5
    for ours, theirs in common:
        assert np.array_equal(found.clean[ours], expected.clean[theirs])


def test_both_namings_are_read_and_the_rest_is_named(built: Path, tmp_path: Path) -> None:
    tree = Path(shutil.copytree(built, tmp_path / "tree"))
    (tree / "weights").mkdir()
    (tree / "README.md").write_text("text")
    (tree / "__MACOSX").mkdir()
    (tree / ".DS_Store").write_bytes(b"\0")
    made = import_sequences(tree, tmp_path / "a.arrow", settings=FEW, workers=1)
    assert made.store.names == ("v_wall", "v_cat")
    assert {Path(name).name for name in made.skipped} == {"weights", "README.md"}
    split = made.store.split()
    assert set(split.test) == {"v_cat", "v_wall"}
    assert split.train == split.validation == ()
    again = import_sequences(tree, tmp_path / "b.arrow", settings=FEW, workers=2)
    assert again.store.fingerprint == made.store.fingerprint


def test_homographies_are_for_pixels_that_begin_at_their_number(built: Path) -> None:
    given = np.loadtxt(built / "v_cat" / "H_1_3")
    loaded = load_sequence(built / "v_cat").homographies[1]
    center = given @ [10, 20, 1]  # the center of pixel (10, 20)
    moved = loaded @ [10.5, 20.5, 1]
    np.testing.assert_allclose(moved[:2] / moved[2], center[:2] / center[2] + 0.5, atol=1e-9)


def _rewrite(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


BROKEN: dict[str, Callable[[Path], object]] = {
    "lacks picture 4": lambda folder: (folder / "4.ppm").unlink(),
    "lacks the homography H_1_5": lambda folder: (folder / "H_1_5").unlink(),
    "H_1_2 is singular": _rewrite("H_1_2", "1 2 3\n2 4 6\n0 0 1"),
    "H_1_2 holds 8 numbers": _rewrite("H_1_2", "1 2 3\n2 4 6\n0 0"),
    "nine finite ones": _rewrite("H_1_2", "1 2 3\n2 nan 6\n0 0 1"),
    "is no homography": _rewrite("H_1_2", "a homography"),
    r"H_1_6 maps 1\.ppm outside 6\.ppm": _rewrite("H_1_6", "1 0 5000\n0 1 0\n0 0 1"),
    r"3\.ppm cannot be decoded": _rewrite("3.ppm", "no picture"),
    "no patch of": lambda folder: (
        Image.open(folder / "2.ppm").crop((0, 0, 12, 12)).save(folder / "2.ppm")
    ),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_broken_sequence_is_refused_with_its_file(
    folder: Path, tmp_path: Path, sentence: str
) -> None:
    BROKEN[sentence](folder)
    with pytest.raises(UserError, match=sentence):
        import_sequences(folder, tmp_path / "s.arrow", settings=FEW, workers=1)
    assert not (tmp_path / "s.arrow").exists()


def test_pictures_of_16_bits_and_with_alpha_are_read(folder: Path, photo: np.ndarray) -> None:
    Image.fromarray(photo.astype(np.uint16) * 256).save(folder / "1.png")
    Image.fromarray(photo).convert("RGBA").save(folder / "2.png")
    for number in (1, 2):
        (folder / f"{number}.ppm").unlink()
    pictures = load_sequence(folder).pictures
    assert np.array_equal(pictures[0], photo)
    assert np.abs(pictures[1].astype(int) - photo).max() <= 1


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["empty", "missing"])
def test_a_folder_without_sequences_is_refused(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    make(folder := tmp_path / "none")
    with pytest.raises(UserError, match=r"no sequence|no folder"):
        import_sequences(folder, tmp_path / "s.arrow")


def test_sequences_of_one_name_get_names_of_their_own(built: Path, tmp_path: Path) -> None:
    for part in ("a", "b"):
        shutil.copytree(built / "v_cat", tmp_path / part / "v_cat")
    names = find_sequences(tmp_path)[0].values()
    assert len(set(names)) == 2
