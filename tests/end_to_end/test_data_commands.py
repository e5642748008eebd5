"""Patch sets by the command: import, photographs, facts, preview."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpsearch.data.patch_store import PatchStore
from hpsearch.patch_views import VIEW_NAMES

from .conftest import Home

pytestmark = pytest.mark.slow


def write_tree(folder: Path, *, side: int, noisy: bool, points: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for name in ("i_ajuntament", "v_abstract"):
        (folder / name).mkdir(parents=True)
        for view in VIEW_NAMES:
            for suffix in ("", "_noise") if noisy else ("",):
                strip = rng.integers(0, 256, (points * side, side), dtype=np.uint8)
                Image.fromarray(strip).save(folder / name / f"{view}{suffix}.png")
        (folder / name / "ref.overlaps").write_text("a side file")
    return folder


@pytest.mark.parametrize(
    ("side", "noisy"), [(65, False), (32, True)], ids=["HPatches", "N-HPatches"]
)
def test_a_tree_becomes_a_store_by_itself(
    home: Home, tmp_path: Path, side: int, noisy: bool
) -> None:
    tree, store = write_tree(tmp_path / "tree", side=side, noisy=noisy), tmp_path / "store.arrow"
    done = home.run_here("data", "import", tree, "--output", store)
    assert done.returncode == 0, done.stderr
    opened = PatchStore.open(store)
    assert opened.names == ("i_ajuntament", "v_abstract")
    assert opened.counts == (3, 3)
    assert "fingerprint" in done.stdout
    if noisy:
        with Image.open(tree / "v_abstract" / "t5_noise.png") as strip:
            ref = np.asarray(strip).reshape(3, 32, 32)
        np.testing.assert_array_equal(opened.noisy[3:, VIEW_NAMES.index("t5")], ref)


def test_a_bad_strip_is_named_or_left_out_on_request(home: Home, tmp_path: Path) -> None:
    tree, store = write_tree(tmp_path / "tree", side=65, noisy=False), tmp_path / "store.arrow"
    Image.new("L", (64, 195)).save(tree / "v_abstract" / "h3.png")
    done = home.run_here("data", "import", tree, "--output", store)
    assert done.returncode == 2
    assert "h3.png" in done.stderr
    assert not store.exists()
    done = home.run_here("data", "import", tree, "--output", store, "--skip-invalid")
    assert done.returncode == 0, done.stderr
    assert "skipped: 1" in done.stdout
    assert PatchStore.open(store).names == ("i_ajuntament",)


def test_photographs_become_a_store_and_bad_ones_are_listed(home: Home, tmp_path: Path) -> None:
    from skimage import data

    folder, store = tmp_path / "photos", tmp_path / "mine.arrow"
    folder.mkdir()
    Image.fromarray(data.camera()).resize((320, 320)).save(folder / "camera.png")
    Image.fromarray(data.rocket()).resize((400, 300)).save(folder / "rocket.jpg")
    Image.new("L", (300, 300), 90).save(folder / "flat.png")
    done = home.run_here("data", "photos", folder, "--output", store, "--points", 20)
    assert done.returncode == 0, done.stderr
    assert "flat.png" in done.stdout
    assert len(PatchStore.open(store).names) == 2
    before = store.read_bytes()
    for command in ("photos", "import", "sequences"):
        again = home.run_here("data", command, folder, "--output", store)
        assert again.returncode == 2
        assert f"{store} exists already" in again.stderr
    assert store.read_bytes() == before


def test_facts_and_preview(home: Home, tmp_path: Path) -> None:
    done = home.run_here("data", "info", home.store)
    assert done.returncode == 0, done.stderr
    assert "192 (32 to 32 a sequence)" in done.stdout
    done = home.run_here(
        "data", "preview", home.store, "--output", tmp_path / "sheet.png", "--rows", 3
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 16 * 32
