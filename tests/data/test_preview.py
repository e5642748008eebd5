import numpy as np
import pytest
from PIL import Image

from hpsearch.data.arrow_header import NoiseLevels, StoreMeta
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.patch_store import write_store
from hpsearch.data.preview import (
    GAP_PIXELS,
    LEFT_PIXELS,
    TOP_PIXELS,
    contact_sheet,
    save_contact_sheet,
    store_facts,
)
from hpsearch.errors import UserError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    sequences = [
        SequencePatches(name, *rng.integers(0, 256, (2, n, 16, 32, 32), dtype=np.uint8))
        for name, n in {"i_a": 2, "v_b": 3, "i_c": 1}.items()
    ]
    meta = StoreMeta(source="random", license="CC0", noise=NoiseLevels())
    return write_store(tmp_path_factory.mktemp("s") / "s.arrow", sequences, meta=meta)


def test_a_sheet_shows_each_view_clean_above_noisy(store):
    sheet = np.asarray(contact_sheet(store, rows=4))
    assert sheet.shape == (TOP_PIXELS + 4 * (128 + GAP_PIXELS), LEFT_PIXELS + 16 * 64)
    first = sheet[TOP_PIXELS : TOP_PIXELS + 128 : 2, LEFT_PIXELS::2]  # zoom 2
    clean, noisy = first[:32], first[32:]
    tiles = [clean[:, 32 * v : 32 * v + 32] for v in range(16)]
    (point,) = np.nonzero((store.clean == tiles).all((1, 2, 3)))[0]
    np.testing.assert_array_equal(noisy[:, 64:96], store.noisy[point, 2])


def test_a_sheet_has_no_more_rows_than_there_are_points(store):
    assert contact_sheet(store, rows=100).height == TOP_PIXELS + 6 * (128 + GAP_PIXELS)


def test_a_sheet_is_saved_as_png(store, tmp_path):
    path = save_contact_sheet(store, tmp_path / "new" / "sheet.png", rows=2)
    with Image.open(path) as image:
        assert image.format == "PNG"
    with pytest.raises(UserError, match="choose another file"):
        save_contact_sheet(store, tmp_path)


def test_the_facts(store):
    facts = store_facts(store)
    assert facts["sequences"] == "3 (2 i_, 1 v_)"
    assert facts["points"] == "6 (1 to 3 a sequence)"
    assert facts["patches"] == "96 of 32×32, clean and noisy"
    assert facts["noise"] == "σ 10 (ref, easy), 20 (hard), 30 (tough)"
    assert facts["splits"].startswith("auto = seeded")
    assert facts["fingerprint"] == store.fingerprint[:16]
