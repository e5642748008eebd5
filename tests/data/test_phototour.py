"""PhotoTour scenes written as the data set has them, and read back."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpsearch.data.arrow_header import NoiseLevels
from hpsearch.data.images import halve
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.phototour import PhototourSettings, import_phototour, order_by_point
from hpsearch.errors import UserError

NO_NOISE = NoiseLevels(easy=0, hard=0, tough=0)
POINTS = np.repeat(np.arange(130), np.resize([3, 2, 2, 1], 130))[:260]
"""Point of each patch: 260 patches, so that the second sheet has four."""
UNSORTED = np.arange(260) * 7 % 90


def write_scene(folder: Path, points: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Write a scene and return its patches of 64×64."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    sheets = -(-len(points) // 256)
    patches = rng.integers(0, 256, (256 * sheets, 64, 64), np.uint8)
    patches[len(points) :] = 0
    for number in range(sheets):
        grid = patches[256 * number : 256 * (number + 1)].reshape(16, 16, 64, 64)
        sheet = np.block([[patch for patch in row] for row in grid])
        Image.fromarray(sheet).save(folder / f"patches{number:04d}.bmp")
    (folder / "info.txt").write_text("".join(f"{point} 0\n" for point in points))
    (folder / "interest.txt").write_text("0 1.0 2.0 0.1 2.0\n" * len(points))
    return patches[: len(points)]


def write_pairs(folder: Path, points: np.ndarray, pairs: list[tuple[int, int]], n: int) -> None:
    lines = [f"{a} {points[a]} 0 {b} {points[b]} 0 0\n" for a, b in pairs]
    (folder / f"m50_{n}_{n}_0.txt").write_text("".join(lines))


def clean_settings(**changes: object) -> PhototourSettings:
    return PhototourSettings.model_validate({"noise": NO_NOISE, **changes})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("tour") / "top" / "liberty"
    patches = write_scene(folder, POINTS)
    write_pairs(folder, POINTS, [(0, 1), (0, 3), (258, 259), (4, 250)], 100000)
    write_pairs(folder, POINTS, [(0, 1)], 500000)
    (folder.parent / ".DS_Store").write_bytes(b"x")
    (folder / "._info.txt").write_bytes(b"x")
    return folder, patches


def expected_patch(patch: np.ndarray) -> np.ndarray:
    """Mean of 2×2 pixels, rounded half up, one by one."""
    small = np.empty((32, 32), np.uint8)
    for y in range(32):
        for x in range(32):
            block = patch[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(int)
            small[y, x] = int(block.mean() + 0.5)
    return small


def test_points_patches_and_pairs_are_those_of_the_scene(scene, tmp_path):
    folder, patches = scene
    found = import_phototour(
        folder.parents[1], tmp_path / "s.arrow", settings=clean_settings(), workers=1
    )
    store = found.store
    store.verify()
    assert store.names == ("liberty",)
    assert np.diff(store.first_rows).tolist() == np.bincount(POINTS).tolist()
    for number in (0, 17, 255, 256, 259):
        np.testing.assert_array_equal(store.clean_rows[number], expected_patch(patches[number]))
    np.testing.assert_array_equal(store.noisy_rows, store.clean_rows)
    assert store.views is not None
    assert store.views[0].pairs.tolist() == [[0, 1], [0, 3], [4, 250], [258, 259]]
    other = import_phototour(
        folder, tmp_path / "t", settings=clean_settings(pairs=500000), workers=1
    ).store
    assert other.views is not None
    assert other.views[0].pairs.tolist() == [[0, 1]]


def test_opencv_halves_alike():
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    patches = np.random.default_rng(0).integers(0, 256, (40, 64, 64), np.uint8)
    for interpolation in (cv2.INTER_LINEAR, cv2.INTER_AREA):
        theirs = [cv2.resize(p, (32, 32), interpolation=interpolation) for p in patches]
        np.testing.assert_array_equal(halve(patches), theirs)


def test_patches_of_a_point_become_adjacent_and_pairs_follow(tmp_path):
    patches = write_scene(tmp_path / "trevi", UNSORTED)
    write_pairs(tmp_path / "trevi", UNSORTED, [(0, 90), (1, 259)], 1000)
    found = import_phototour(
        tmp_path / "trevi", tmp_path / "s", settings=clean_settings(), workers=1
    )
    store = found.store
    order = sorted(range(260), key=lambda i: UNSORTED.tolist().index(UNSORTED[i]) * 1000 + i)
    np.testing.assert_array_equal(store.clean_rows, halve(patches[order]))
    assert store.views is not None
    rows = [[order.index(a), order.index(b)] for a, b in [(0, 90), (1, 259)]]
    assert store.views[0].pairs.tolist() == sorted(rows)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40))
def test_order_by_point_keeps_points_and_patches_in_order(points):
    order, counts = order_by_point(np.array(points))
    firsts = list(dict.fromkeys(points))
    expected = [i for point in firsts for i, other in enumerate(points) if other == point]
    assert order.tolist() == expected
    assert counts.tolist() == [points.count(point) for point in firsts]


def test_noise_is_that_of_hpatches_and_depends_on_the_seed(scene, tmp_path):
    folder, _ = scene
    levels = NoiseLevels(easy=1, hard=8, tough=30)
    stores = [
        import_phototour(
            folder,
            tmp_path / f"{i}",
            settings=PhototourSettings(noise=levels, seed=seed),
            workers=1,
        ).store
        for i, seed in enumerate([0, 0, 1])
    ]
    assert stores[0].fingerprint == stores[1].fingerprint != stores[2].fingerprint
    middle = (stores[0].clean_rows > 100) & (stores[0].clean_rows < 156)
    differences = np.subtract(stores[0].noisy_rows, stores[0].clean_rows, dtype=int)
    sigma = np.array([d[m].std() for d, m in zip(differences, middle, strict=True)])
    shares = [np.mean(abs(sigma / wanted - 1) < 0.25) for wanted in (1, 8, 30)]
    assert np.allclose(shares, np.array([6, 5, 5]) / 16, atol=0.1)


def test_several_processes_write_the_same_store(scene, tmp_path):
    folder, _ = scene
    one, two = (
        import_phototour(folder, tmp_path / f"{workers}", workers=workers).store
        for workers in (1, 2)
    )
    assert one.fingerprint == two.fingerprint


def write_absurd_header(sheet: Path) -> None:
    data = bytearray(sheet.read_bytes())
    data[18:26] = (100_000).to_bytes(4, "little") * 2
    sheet.write_bytes(data)


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing sheet": ("patches0001.bmp", Path.unlink),
    "gap": ("patches0001.bmp", lambda f: f.rename(f.with_name("patches0002.bmp"))),
    "more sheets": (
        "patches0001.bmp", lambda f: f.with_name("patches0002.bmp").write_bytes(f.read_bytes())
    ),
    "short sheet": ("patches0001.bmp", lambda f: f.write_bytes(f.read_bytes()[:500_000])),
    "other size": ("patches0001.bmp", lambda f: Image.new("L", (1024, 512)).save(f)),
    "absurd header": ("patches0001.bmp", write_absurd_header),
    "no picture": ("patches0001.bmp", lambda f: f.write_bytes(b"BM but no more")),
    "short info": ("info.txt", lambda f: f.write_text("0 0\n" * 200)),
    "words": ("info.txt", lambda f: f.write_text("0 0\nzero 0\n" * 130)),
    "empty": ("info.txt", lambda f: f.write_text("\n")),
    "huge number": ("info.txt", lambda f: f.write_text(f"{10**30} 0\n" * 260)),
    "patch outside": ("m50_1000_1000_0.txt", lambda f: f.write_text("0 0 0 260 129 0 0\n")),
    "negative patch": ("m50_1000_1000_0.txt", lambda f: f.write_text("-1 0 0 3 1 0 0\n")),
    "other point": (
        "m50_1000_1000_0.txt", lambda f: f.write_text("0 0 0 1 0 0\n0 5 0 3 1 0 0\n")
    ),
    "short line": ("m50_1000_1000_0.txt", lambda f: f.write_text("0 0 0 1\n")),
}  # fmt: skip
PROBLEMS = {
    "missing sheet": r"info.txt lists 260 patches, which fill 2 sheets, but there are 1",
    "gap": r"lacks the sheet patches0001.bmp",
    "more sheets": r"info.txt lists 260 .* there are 3",
    "short sheet": r"patches0001.bmp cannot be decoded",
    "other size": r"patches0001.bmp has 1024×512 pixels; expected 1024×1024",
    "absurd header": r"patches0001.bmp has too many pixels",
    "no picture": r"patches0001.bmp cannot be decoded",
    "short info": r"info.txt lists 200 patches, which fill 1 sheets, but there are 2",
    "words": r"info.txt, line 2, is 'zero 0'",
    "empty": r"info.txt is empty",
    "huge number": r"info.txt, line 1",
    "patch outside": r"m50_1000_1000_0.txt, line 1, names patch 260, but .* 0 to 259",
    "negative patch": r"m50_1000_1000_0.txt, line 1",
    "other point": r"m50_1000_1000_0.txt, line 2, gives another point",
    "short line": r"m50_1000_1000_0.txt, line 1, is '0 0 0 1'; expected 6 whole numbers",
}


@pytest.mark.parametrize(("what", "message"), PROBLEMS.items(), ids=list(PROBLEMS))
def test_a_damaged_scene_is_refused_in_a_sentence(what, message, tmp_path):
    write_scene(tmp_path / "in" / "liberty", POINTS)
    file, damage = DAMAGES[what]
    damage(tmp_path / "in" / "liberty" / file)
    with pytest.raises(UserError, match=message) as caught:
        import_phototour(tmp_path / "in", tmp_path / "out" / "s.arrow", workers=1)
    assert "; " in str(caught.value)
    assert list((tmp_path / "out").glob("*")) == [], "nothing is half-written"


def test_a_list_that_is_not_there_is_named(scene, tmp_path):
    with pytest.raises(UserError, match=r"no list .*m50_7_7_0.txt \(there: 100000, 500000\)"):
        import_phototour(scene[0], tmp_path / "s", settings=PhototourSettings(pairs=7))


@settings(max_examples=15)
@given(st.binary(max_size=60), st.sampled_from(["info.txt", "m50_1000_1000_0.txt"]))
def test_crafted_lists_are_refused_or_read(tmp_path_factory, content, name):
    folder = tmp_path_factory.mktemp("crafted")
    write_scene(folder / "a", np.zeros(2, int))
    (folder / "a" / name).write_bytes(content)
    try:
        store = import_phototour(folder, folder / "s", settings=clean_settings(), workers=1).store
    except UserError as error:
        assert str(folder) in str(error)  # noqa: PT017  it may also be valid
    else:
        PatchStore.open(store.path).verify()
