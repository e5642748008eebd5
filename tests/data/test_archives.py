"""Archives and folders of data sets as users have them, and as an attacker makes them."""

import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpsearch.data import archives
from hpsearch.data.archives import archive_stem, unpacked
from hpsearch.data.arrow_header import NoiseLevels
from hpsearch.data.data_sources import check_kind
from hpsearch.data.hpatches_import import ImportSettings, import_tree
from hpsearch.data.image_sequences import import_sequences
from hpsearch.data.photo_folder import import_photos
from hpsearch.data.phototour import import_phototour
from hpsearch.errors import UserError
from hpsearch.patch_views import VIEW_NAMES

SETTINGS = ImportSettings(noise=NoiseLevels(easy=0, hard=0, tough=0))


def write_strips(folder: Path, *, suffix: str = ".png") -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for view in VIEW_NAMES:
        strip = Image.fromarray(rng.integers(0, 256, (64, 32), np.uint8))
        strip.save(folder / f"{view}{suffix}", format="PNG")


def write_sequence(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(1, 7):
        Image.new("L", (40, 30), 9 * number).save(folder / f"{number}.ppm")
    for number in range(2, 7):
        (folder / f"H_1_{number}").write_text("1 0 0 0 1 0 0 0 1")


def write_scene(folder: Path) -> None:
    folder.mkdir(parents=True)
    Image.new("L", (1024, 1024), 9).save(folder / "patches0000.bmp")
    (folder / "info.txt").write_text("0 0\n0 0\n1 0\n1 0\n")


def clutter(top: Path) -> None:
    for name in ("__MACOSX/v_a/._ref.png", ".DS_Store", "v_a/._ref.png", "v_a/Thumbs.db"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"x")


def zipped(folder: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder.parent))


def tarred(folder: Path, archive: Path, mode: str) -> None:
    with tarfile.open(archive, mode) as file:
        file.add(folder, folder.name)


PACKERS: dict[str, Callable[[Path, Path], None]] = {
    "a.zip": zipped,
    "A.ZIP": zipped,
    "a.tar": lambda folder, archive: tarred(folder, archive, "w"),
    "a.tar.gz": lambda folder, archive: tarred(folder, archive, "w:gz"),
    "a.tgz": lambda folder, archive: tarred(folder, archive, "w:gz"),
    "a": zipped,
}


@pytest.mark.parametrize("name", PACKERS)
def test_an_archive_gives_the_store_of_its_folder(name, tmp_path):
    write_strips(tmp_path / "top" / "hpatches" / "v_a")
    clutter(tmp_path / "top" / "hpatches")
    PACKERS[name](tmp_path / "top", tmp_path / name)
    tree = import_tree(tmp_path / "top", tmp_path / "1" / "s", settings=SETTINGS, workers=1)
    found = import_tree(tmp_path / name, tmp_path / "2" / "s", settings=SETTINGS, workers=1)
    assert found.store.fingerprint == tree.store.fingerprint
    assert (found.store.names, found.skipped) == (("v_a",), {})
    assert [p.name for p in (tmp_path / "2").iterdir()] == ["s"], "nothing unpacked is left"


def test_each_source_is_read_from_an_archive(tmp_path):
    rng = np.random.default_rng(3)
    picture = Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).resize((200, 160))
    for name in ("photos/b.JPG", "photos/inner/c.PNG", "photos/broken.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.rotate(len(name)).convert("RGB").save(tmp_path / name)
    (tmp_path / "photos/broken.png").write_bytes(b"x")
    write_scene(tmp_path / "tour" / "trevi")
    for folder in ("photos", "tour"):
        zipped(tmp_path / folder, tmp_path / f"{folder}.zip")
    found = import_photos(tmp_path / "photos.zip", tmp_path / "p", workers=1)
    assert found.store.names == ("i_b", "i_c")
    assert list(found.skipped) == [str(tmp_path / "photos.zip" / "photos" / "broken.png")]
    assert found.store.meta.source == "photographs in photos"
    assert import_phototour(tmp_path / "tour.zip", tmp_path / "t").store.names == ("trevi",)


def test_a_message_names_the_file_inside_the_archive(tmp_path):
    write_sequence(tmp_path / "full" / "v_b")
    (tmp_path / "full" / "v_b" / "H_1_3").write_text("1 2")
    zipped(tmp_path / "full", tmp_path / "full.zip")
    with pytest.raises(UserError) as caught:
        import_sequences(tmp_path / "full.zip", tmp_path / "s", workers=1)
    assert str(tmp_path / "full.zip" / "full" / "v_b" / "H_1_3") in str(caught.value)
    assert ".part" not in str(caught.value)


def test_upper_case_links_and_a_read_only_folder_are_harmless(tmp_path):
    write_strips(tmp_path / "real" / "v_a", suffix=".PNG")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "v_a").symlink_to(tmp_path / "real" / "v_a")
    (tree / "loop").symlink_to(tree)
    (tree / "dangling").symlink_to(tmp_path / "nowhere")
    tree.chmod(0o555)
    try:
        found = import_tree(tree, tmp_path / "s", settings=SETTINGS, workers=1)
    finally:
        tree.chmod(0o755)
    assert found.store.names == ("v_a",)


def test_folders_that_contain_themselves_are_searched_once(tmp_path):
    write_sequence(tmp_path / "all" / "v_b")
    for number in range(8):
        (tmp_path / "all" / f"loop{number}").symlink_to(tmp_path / "all")
    with pytest.raises(UserError, match=r"v_b"):  # without texture it has no points
        import_sequences(tmp_path / "all", tmp_path / "s", workers=1)


def zip_of(archive: Path, name: str, content: bytes = b"x", *, mode: int = 0o644) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        entry = zipfile.ZipInfo(name)
        entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        file.writestr(entry, content)


def tar_of(archive: Path, name: str, **fields: object) -> None:
    with tarfile.open(archive, "w:gz") as file:
        entry = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(entry, field, value)
        file.addfile(entry, io.BytesIO(bytes(entry.size)))


def zip_lies(archive: Path) -> None:
    """Zip whose directory states one byte for a member of a gigabyte."""
    zip_of(archive, "v_a/ref.png", bytes(10**6))
    data = bytearray(archive.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 1)
    archive.write_bytes(data)


def zip_twice(archive: Path) -> None:
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("v_a/ref.png", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("v_a/ref.png", b"2")


def encrypted(archive: Path) -> None:
    zip_of(archive, "v_a/ref.png")
    data = bytearray(archive.read_bytes())
    for at in (6, data.rindex(b"PK\x01\x02") + 8):
        data[at] |= 1
    archive.write_bytes(data)


def cut(archive: Path) -> None:
    tar_of(archive, "v_a/ref.png", size=10**6)
    archive.write_bytes(archive.read_bytes()[:-40])


CRAFTED: dict[str, Callable[[Path], None]] = {
    "parent": lambda a: zip_of(a, "../outside"),
    "deep parent": lambda a: zip_of(a, "v_a/../../outside"),
    "absolute": lambda a: zip_of(a, "/tmp/sources-outside"),
    "backslash": lambda a: zip_of(a, "..\\outside"),
    "drive": lambda a: zip_of(a, "C:\\outside"),
    "escape": lambda a: zip_of(a, "v_a/\x1b[2J.png"),
    "zip link": lambda a: zip_of(a, "v_a", b"/etc", mode=stat.S_IFLNK | 0o777),
    "tar parent": lambda a: tar_of(a, "../outside"),
    "tar absolute": lambda a: tar_of(a, "/tmp/sources-outside"),
    "tar link": lambda a: tar_of(a, "v_a", type=tarfile.SYMTYPE, linkname="/etc"),
    "tar hard link": lambda a: tar_of(a, "v_a", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "tar device": lambda a: tar_of(a, "v_a", type=tarfile.CHRTYPE),
    "tar pipe": lambda a: tar_of(a, "v_a", type=tarfile.FIFOTYPE),
    "bomb": lambda a: zip_of(a, "v_a/ref.png", bytes(60_000_000)),
    "tar bomb": lambda a: tar_of(a, "v_a/ref.png", size=60_000_000),
    "states less": zip_lies,
    "twice": zip_twice,
    "encrypted": encrypted,
    "cut": cut,
    "long name": lambda a: zip_of(a, "a" * 300),
    "nothing": lambda a: zip_of(a, "empty/"),
}


@pytest.mark.parametrize("make", CRAFTED.values(), ids=list(CRAFTED))
def test_a_crafted_archive_is_refused_and_leaves_nothing(make, tmp_path):
    archive = tmp_path / "in" / "crafted"
    archive.parent.mkdir()
    make(archive)
    with pytest.raises(UserError, match=f"{archive} .*;"):
        import_tree(archive, tmp_path / "out" / "s", workers=1)
    assert list((tmp_path / "out").glob("*")) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert not Path("/tmp/sources-outside").exists()


def test_an_archive_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    write_strips(tmp_path / "v_a")
    zipped(tmp_path / "v_a", tmp_path / "a.zip")
    with pytest.raises(UserError, match="more than 3 files"):
        import_tree(tmp_path / "a.zip", tmp_path / "s")


def test_what_a_killed_process_unpacked_is_removed_by_the_next(tmp_path):
    write_strips(tmp_path / "top" / "v_a")
    zipped(tmp_path / "top", tmp_path / "a.zip")
    killed = tmp_path / f".s.{os.uname().nodename}.999999999.abcd.part"
    (killed / "a").mkdir(parents=True)
    with unpacked(tmp_path / "a.zip", tmp_path / "s") as folder:
        assert not killed.exists()
        assert (folder / "top" / "v_a" / "ref.png").is_file()


def test_files_that_are_no_archive_are_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 but no more")
    (tmp_path / "empty.tar.gz").write_bytes(b"")
    for name in ("x.zip", "empty.tar.gz", "missing.zip"):
        with pytest.raises(UserError, match=f"{name}.*;"):
            import_photos(tmp_path / name, tmp_path / "s")


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "strips": (write_strips, "import"),
    "full pictures": (write_sequence, "sequences"),
    "scene": (write_scene, "phototour"),
}


@pytest.mark.parametrize("wanted", ["import", "photos", "sequences", "phototour"])
@pytest.mark.parametrize(("make", "kind"), KINDS.values(), ids=list(KINDS))
def test_data_of_another_kind_is_told_with_its_command(make, kind, wanted, tmp_path):
    make(tmp_path / "top" / "inner" / "v_a")
    if kind == wanted:
        check_kind(tmp_path, wanted)
        return
    with pytest.raises(UserError, match=f"hpsearch data {kind}") as caught:
        check_kind(tmp_path, wanted)
    assert caught.value.code == "other-kind-of-data"


def test_photographs_beside_a_sequence_are_photographs(tmp_path):
    write_sequence(tmp_path / "v_a")
    for number in range(20):
        Image.new("L", (9, 9)).save(tmp_path / f"holiday{number}.jpg")
    check_kind(tmp_path, "photos")
    check_kind(tmp_path, "sequences")


def test_a_name_loses_its_suffix():
    names = ("a.tar.gz", "A.ZIP", "hpatches.v1.tar", "noise")
    assert [archive_stem(Path(n)) for n in names] == ["a", "A", "hpatches.v1", "noise"]
