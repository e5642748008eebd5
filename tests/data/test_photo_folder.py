import numpy as np
import pytest
from PIL import Image

from hpsearch.data.builtin_sets import photograph
from hpsearch.data.photo_folder import import_photos, load_gray
from hpsearch.data.photo_synthesis import PhotoSettings
from hpsearch.errors import UserError

FEW = PhotoSettings(points=24)
ROTATED = 6  # EXIF: to be turned by 90° clockwise


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(photograph("chelsea")).reduce(2)


@pytest.fixture
def folder(tmp_path, picture):
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    picture.save(folder / "a.png")
    picture.crop((0, 0, 150, 150)).save(folder / "b.JPG", format="JPEG")
    (folder / "__MACOSX").mkdir()
    for clutter in (folder / "._a.png", folder / "__MACOSX" / "a.png"):
        clutter.write_bytes(b"\0\5\x16\7")  # of an archive of macOS
    picture.rotate(90, expand=True).save(folder / "more" / "i_c.webp", lossless=True)
    return folder


def test_pictures_become_sequences_in_alphabetical_order(folder, tmp_path):
    calls = []
    made = import_photos(
        folder, tmp_path / "s.arrow", settings=FEW, progress=lambda *a: calls.append(a)
    )
    assert made.skipped == {}
    assert made.store.names == ("i_a", "v_b", "i_c")
    assert max(made.store.counts) == 24
    assert calls == [(0, 3, ""), (1, 3, "i_a"), (2, 3, "v_b"), (3, 3, "i_c")]
    again = import_photos(folder, tmp_path / "t.arrow", settings=FEW, workers=1)
    assert again.store.fingerprint == made.store.fingerprint


def test_what_cannot_be_used_is_left_out_with_its_reason(folder, tmp_path, picture):
    (folder / "broken.jpg").write_bytes((folder / "b.JPG").read_bytes()[:900])
    (folder / "text.png").write_text("no picture")
    Image.new("L", (300, 300), 90).save(folder / "flat.png")
    picture.resize((100, 80)).save(folder / "small.png")
    picture.save(folder / "z_again.png")
    made = import_photos(folder, tmp_path / "s.arrow", settings=FEW, workers=1)
    assert len(made.store.names) == 3
    reasons = {file.rpartition("/")[2]: why for file, why in made.skipped.items()}
    assert sorted(reasons) == ["broken.jpg", "flat.png", "small.png", "text.png", "z_again.png"]
    assert reasons["broken.jpg"].startswith("cannot be decoded")
    assert reasons["text.png"].startswith("cannot be decoded")
    assert reasons["flat.png"].startswith("is flat")
    assert reasons["small.png"] == "is too small (100×80, needs 120)"
    assert reasons["z_again.png"] == f"is the same picture as {folder / 'a.png'}"


def test_a_camera_that_was_held_sideways_gives_the_same_pixels(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    picture.save(tmp_path / "upright.png")
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "sideways.png", exif=exif)
    np.testing.assert_array_equal(
        load_gray(tmp_path / "sideways.png"), load_gray(tmp_path / "upright.png")
    )


def test_large_and_deep_pictures_are_brought_to_size_and_range(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 2600).astype(np.uint16), (1500, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    gray = load_gray(tmp_path / "deep.png")
    assert max(gray.shape) == 1024
    assert (gray[0, 0], gray[0, -1]) == (0, 255)


def test_two_files_of_one_name_stay_two_sequences(tmp_path, picture):
    for sub in ("one", "two"):
        (tmp_path / "in" / sub).mkdir(parents=True)
    picture.save(tmp_path / "in" / "one" / "i_x.png")
    picture.rotate(180).save(tmp_path / "in" / "two" / "i_x.png")
    store = import_photos(tmp_path / "in", tmp_path / "s.arrow", settings=FEW, workers=1).store
    assert store.names == ("i_x", "i_x_1")


def test_folders_without_a_usable_picture_are_refused(tmp_path):
    with pytest.raises(UserError, match="no folder at"):
        import_photos(tmp_path / "nothing", tmp_path / "s.arrow")
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="no JPEG, PNG or WebP"):
        import_photos(tmp_path / "in", tmp_path / "s.arrow")
    Image.new("L", (20, 20)).save(tmp_path / "in" / "dot.png")
    with pytest.raises(UserError, match=r"no picture in .*dot\.png, is too small"):
        import_photos(tmp_path / "in", tmp_path / "s.arrow", workers=1)
    assert not (tmp_path / "s.arrow").exists()
