import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpsearch.data.arrow_header import NoiseLevels, StoreMeta
from hpsearch.data.arrow_writer import preallocated
from hpsearch.data.hpatches_import import ImportSettings, import_tree
from hpsearch.data.images import add_noise, area_downsample
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.patch_views import VIEW_NAMES

META = StoreMeta(source="test", license="CC0")
SKIP = ImportSettings(skip_invalid=True)


def write_tree(folder, *, counts, side=65, has_noisy=False, seed=0):
    """Random strips in the release's layout; returns them by (sequence, file name)."""
    rng = np.random.default_rng(seed)
    strips = {}
    for name, n in counts.items():
        (folder / name).mkdir(parents=True)
        for view in VIEW_NAMES:
            for file in (view, f"{view}_noise")[: 1 + has_noisy]:
                strip = rng.integers(0, 256, (n * side, side), dtype=np.uint8)
                Image.fromarray(strip).save(folder / name / f"{file}.png", compress_level=1)
                strips[name, file] = strip.reshape(n, side, side)
    return strips


def read(store, name):
    here = store.sequence_of == store.names.index(name)
    return store.clean[here], store.noisy[here]


TREES = st.fixed_dictionaries(
    {
        "counts": st.dictionaries(
            st.sampled_from(["i_ajuntament", "v_wall", "i_x", "other"]),
            st.integers(1, 4),
            min_size=1,
            max_size=3,
        ),
        "side": st.sampled_from([65, 32]),
        "has_noisy": st.booleans(),
        "seed": st.integers(0, 99),
    }
)


@settings(max_examples=10, deadline=None)
@given(TREES)
def test_every_patch_of_a_tree_stands_in_its_place(tree):
    with tempfile.TemporaryDirectory() as folder:
        strips = write_tree(Path(folder) / "release", **tree)
        store, left_out = import_tree(
            Path(folder) / "release", Path(folder) / "s.arrow", settings=SKIP, workers=1
        )
        assert left_out == {}
        assert dict(zip(store.names, store.counts, strict=True)) == tree["counts"]
        assert list(store.names) == sorted(store.names)
        store.verify()
        for name in store.names:
            clean, noisy = read(store, name)
            small = (lambda p: p) if tree["side"] == 32 else area_downsample
            for v, view in enumerate(VIEW_NAMES):
                np.testing.assert_array_equal(clean[:, v], small(strips[name, view]))
                if tree["has_noisy"]:
                    np.testing.assert_array_equal(noisy[:, v], small(strips[name, f"{view}_noise"]))
            if not tree["has_noisy"]:
                made = add_noise(clean, name=name, levels=NoiseLevels())
                np.testing.assert_array_equal(noisy, made)
        assert store.meta.noise == (None if tree["has_noisy"] else NoiseLevels())


def _resave(change):
    def damage(file):
        with Image.open(file) as image:
            change(image.copy()).save(file)

    return damage


def _rewrite(change):
    return lambda file: file.write_bytes(change(file.read_bytes()))


def _taller(image):
    return Image.fromarray(np.pad(np.asarray(image), ((0, image.width), (0, 0))))


DAMAGE = {
    "width": (_resave(lambda i: i.resize((33, i.height))), "33"),
    "height": (_resave(lambda i: i.crop((0, 0, i.width, i.height - 1))), "expected"),
    "points": (_resave(_taller), "expected"),
    "colour": (_resave(lambda i: i.convert("RGB")), "expected 8-bit gray"),
    "palette": (_resave(lambda i: i.convert("P")), "expected 8-bit gray"),
    "16-bit": (_resave(lambda i: i.convert("I;16")), "16-bit; expected 8-bit gray"),
    "missing": (lambda file: file.unlink(), "missing; expected a strip for each"),
    "truncated": (_rewrite(lambda b: b[: len(b) // 2]), "expected a complete PNG"),
    "empty": (_rewrite(lambda b: b""), "expected an 8-bit gray strip"),
    "no PNG": (_rewrite(lambda b: b"BM" + b), "expected an 8-bit gray strip"),
}


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(sorted(DAMAGE)),
    st.sampled_from(VIEW_NAMES),
    st.sampled_from([65, 32]),
    st.booleans(),
)
def test_a_bad_strip_is_named_or_left_out(kind, view, side, has_noisy):
    damage, message = DAMAGE[kind]
    with tempfile.TemporaryDirectory() as folder:
        tree, out = Path(folder) / "tree", Path(folder) / "out"
        counts = {"i_a": 2, "i_b": 3, "v_c": 2}
        write_tree(tree, counts=counts, side=side, has_noisy=has_noisy)
        damage(tree / "i_b" / f"{view}{'_noise' if has_noisy else ''}.png")
        with pytest.raises(UserError) as caught:
            import_tree(tree, out / "s.arrow", workers=1)
        assert message in str(caught.value)
        assert f"{tree}/i_b/" in str(caught.value)
        assert not out.exists() or list(out.iterdir()) == []
        store, left_out = import_tree(tree, out / "s.arrow", settings=SKIP, workers=1)
        assert store.names == ("i_a", "v_c")
        assert list(left_out) == ["i_b"]
        assert message in left_out["i_b"]
        assert [p.name for p in out.iterdir()] == ["s.arrow"]
        without = Path(folder) / "without"
        shutil.rmtree(tree / "i_b")
        clean_store = import_tree(tree, without / "s.arrow", workers=1).store
        assert clean_store.fingerprint == store.fingerprint


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_flipped_byte_of_a_strip_is_an_error_that_names_the_sequence(data):
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        write_tree(tree, counts={"i_a": 1})
        file = tree / "i_a" / "h3.png"
        content = bytearray(file.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        file.write_bytes(content)
        with pytest.raises(UserError, match="i_a"):
            import_tree(tree, Path(folder) / "s.arrow", workers=1)


def test_processes_write_the_same_store_as_one(tmp_path):
    write_tree(tmp_path / "t", counts={"i_a": 3, "i_b": 1, "v_c": 2})
    calls = []
    one = import_tree(tmp_path / "t", tmp_path / "1.arrow", workers=1).store
    two = import_tree(
        tmp_path / "t", tmp_path / "2.arrow", workers=2, progress=lambda *a: calls.append(a)
    ).store
    assert (tmp_path / "1.arrow").read_bytes() == (tmp_path / "2.arrow").read_bytes()
    assert one.fingerprint == two.fingerprint
    assert calls == [(1, 3, "i_a"), (2, 3, "i_b"), (3, 3, "v_c")]


def test_side_files_hidden_folders_and_a_wrapping_folder_do_not_matter(tmp_path):
    inner = tmp_path / "download" / "hpatches-release"
    write_tree(inner, counts={"i_a": 1, "v_b": 1})
    (inner / "i_a" / "e1.rotjitter").write_text("0.1")
    (inner / "readme.txt").write_text("hello")
    (inner / "notes").mkdir()
    (inner / ".cache").mkdir()
    for folder in (inner / "i_a", tmp_path / "download" / "__MACOSX" / "hpatches-release"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "._ref.png").write_bytes(b"\0\5\x16\7")  # AppleDouble, of an archive of macOS
    with (inner / "i_a" / "h2.png").open("ab") as strip:
        strip.write(b"trailing")
    store, _ = import_tree(tmp_path / "download", tmp_path / "s.arrow", workers=1)
    assert store.names == ("i_a", "v_b")


def test_a_sequence_of_another_kind_is_bad(tmp_path):
    write_tree(tmp_path / "t", counts={"i_a": 1, "i_b": 1})
    write_tree(tmp_path / "t", counts={"v_c": 1}, side=32, has_noisy=True)
    with pytest.raises(UserError, match="v_c has strips 32 pixels wide"):
        import_tree(tmp_path / "t", tmp_path / "s.arrow", workers=1)


def test_noise_settings_count(tmp_path):
    write_tree(tmp_path / "t", counts={"i_a": 2})
    none = ImportSettings(noise=NoiseLevels(easy=0, hard=0, tough=0))
    store, _ = import_tree(tmp_path / "t", tmp_path / "s.arrow", settings=none, workers=1)
    np.testing.assert_array_equal(store.noisy, store.clean)


@pytest.mark.parametrize(("make", "message"), [(False, "no folder at"), (True, "no sequences")])
def test_an_empty_or_missing_folder_says_what_is_expected(tmp_path, make, message):
    if make:
        (tmp_path / "t").mkdir()
    with pytest.raises(UserError, match=message):
        import_tree(tmp_path / "t", tmp_path / "s.arrow")


def test_a_tree_of_bad_sequences_makes_no_store(tmp_path):
    write_tree(tmp_path / "t", counts={"i_a": 1})
    (tmp_path / "t" / "i_a" / "t5.png").unlink()
    with pytest.raises(UserError, match=r"t5\.png is missing"):
        import_tree(tmp_path / "t", tmp_path / "s.arrow", settings=SKIP)


def test_a_disk_without_space_is_reported_before_anything_is_written(tmp_path):
    with (
        pytest.raises(UserError, match=r"needs 32768.0 GB and .* has"),
        preallocated(tmp_path / "s.arrow", names=["i_a"], counts=[10**9], meta=META),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
from pathlib import Path
from hpsearch.data.arrow_writer import preallocated
from hpsearch.data.arrow_header import StoreMeta
with preallocated(
    Path(sys.argv[1]), names=["a"], counts=[1], meta=StoreMeta(source="", license="")
):
    os.kill(os.getpid(), 9)
"""


def test_a_killed_import_leaves_no_store_and_the_next_one_removes_its_rest(tmp_path):
    write_tree(tmp_path / "t", counts={"i_a": 1})
    out = tmp_path / "out" / "s.arrow"
    subprocess.run([sys.executable, "-c", KILLED, out], check=False)
    assert [p.suffix for p in out.parent.iterdir()] == [".part"]
    with pytest.raises(UserError, match="no patch store"):
        PatchStore.open(out)
    import_tree(tmp_path / "t", out, workers=1)
    assert [p.name for p in out.parent.iterdir()] == ["s.arrow"]
