"""Stores whose points have numbers of views of their own, and the samplers on them."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import MinedTriplets, Pairs, PKSampler, RandomTriplets
from hpsearch.data.arrow_header import PointViews, StoreMeta
from hpsearch.data.arrow_reader import check_columns
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.patch_store import PatchStore, write_store
from hpsearch.data.preview import contact_sheet, store_facts
from hpsearch.data.samplers import sample
from hpsearch.data.splits import TrialSplit
from hpsearch.errors import UserError
from hpsearch.rng import rng_for
from hpsearch.training.triplet_mining import Miner

META = StoreMeta(source="random numbers", license="CC0")
VIEWS = {"liberty": [3, 2, 5, 1], "trevi": [2, 20, 2]}
PAIRS = {"liberty": [[9, 10], [0, 2], [0, 4], [0, 2]], "trevi": []}
SPLIT = TrialSplit("s", train=("trevi", "liberty"), validation=(), test=())


def sequence(name: str) -> SequencePatches:
    rng = np.random.default_rng(len(name))
    pixels = rng.integers(0, 256, (2, sum(VIEWS[name]), 32, 32), dtype=np.uint8)
    views = PointViews(np.array(VIEWS[name]), np.array(PAIRS[name], int).reshape(-1, 2))
    return SequencePatches(name, *pixels, views)


@pytest.fixture(scope="module")
def sequences() -> dict[str, SequencePatches]:
    return {name: sequence(name) for name in VIEWS}


@pytest.fixture(scope="module")
def path(tmp_path_factory, sequences) -> Path:
    path = tmp_path_factory.mktemp("views") / "tour.arrow"
    write_store(path, sequences.values(), meta=META)
    return path


def test_what_was_written_is_read_and_verified(path, sequences):
    store = PatchStore.open(path)
    store.verify()
    check_columns(path)
    assert (store.names, store.counts) == (("liberty", "trevi"), (4, 3))
    assert store.first_rows.tolist() == [0, 3, 5, 10, 11, 13, 33, 35]
    assert store.sequence_of.tolist() == [0, 0, 0, 0, 1, 1, 1]
    for pixels, name in ((store.clean_rows, "clean"), (store.noisy_rows, "noisy")):
        wanted = np.concatenate([getattr(s, name) for s in sequences.values()])
        np.testing.assert_array_equal(pixels, wanted)


def test_any_arrow_reader_finds_view_point_and_partners(path):
    table = pa.ipc.open_file(path).read_all()
    table.validate(full=True)
    rows = table.drop_columns(["clean", "noisy"]).to_pylist()
    assert rows[7] == {"sequence": "liberty", "view": 2, "index": 2, "pairs": []}
    assert rows[0]["pairs"] == [2, 2, 4]
    assert rows[33] == {"sequence": "trevi", "view": 0, "index": 2, "pairs": []}


def test_a_part_gathers_the_views_and_pairs_of_its_points(path, sequences):
    patches = PatchStore.open(path).part(SPLIT, "train")
    assert patches.names == ("trevi", "liberty")
    assert patches.first_rows.tolist() == [0, 2, 22, 24, 27, 29, 34, 35]
    assert patches.num_rows == 35
    expected = np.concatenate([sequences[name].noisy for name in patches.names])
    np.testing.assert_array_equal(patches.load_all(noisy=True), expected)
    rows = np.array([34, 0, 23, 24, 3])
    np.testing.assert_array_equal(patches.gather(rows, noisy=True), expected[rows])
    assert patches.points_of(rows).tolist() == [6, 0, 2, 3, 1]
    assert patches.pairs.tolist() == [[24, 26], [24, 26], [24, 28], [33, 34]]
    again = pickle.loads(pickle.dumps(patches))
    np.testing.assert_array_equal(again.load_all(noisy=True), expected)


def test_the_fingerprint_follows_views_and_pairs_and_not_the_order_of_pairs(path, tmp_path):
    def written(views: list[int], pairs: list[list[int]]) -> str:
        changed = sequence("liberty")._replace(views=PointViews(np.array(views), np.array(pairs)))
        return write_store(tmp_path / "s", [changed, sequence("trevi")], meta=META).fingerprint

    first = PatchStore.open(path).fingerprint
    assert written(VIEWS["liberty"], PAIRS["liberty"][::-1]) == first
    assert written([2, 3, 5, 1], PAIRS["liberty"]) != first
    assert written(VIEWS["liberty"], PAIRS["liberty"][:3]) != first


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_a_flipped_byte_is_reported_or_does_not_matter(path, share, bits, at_the_end):
    data = bytearray(path.read_bytes())
    data[-1 - int(share * 4000) if at_the_end else int(share * 4000)] ^= bits
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "s.arrow"
        changed.write_bytes(data)
        try:
            store = PatchStore.open(changed)
            store.verify()
        except UserError as error:
            assert str(changed) in str(error)  # noqa: PT017  it may also pass
        else:
            original = PatchStore.open(path)
            np.testing.assert_array_equal(store.first_rows, original.first_rows)
            ours, theirs = (s.part(SPLIT, "train").pairs for s in (store, original))
            np.testing.assert_array_equal(ours, theirs)


def test_what_needs_levels_says_so(path):
    store = PatchStore.open(path)
    for reading in (lambda: store.clean, lambda: store.noisy):
        with pytest.raises(UserError, match=r"16 views .*tour.arrow") as caught:
            reading()
        assert caught.value.code == "no-levels"


def test_a_store_shows_its_views(path):
    store = PatchStore.open(path)
    assert store_facts(store)["views"] == (
        "1 to 20 a point, without levels, 4 pairs for verification"
    )
    assert contact_sheet(store, rows=7).width == contact_sheet(store, rows=99).width


SEED = st.integers(0, 2**31)
VIEW_COUNTS = st.lists(st.integers(1, 40), min_size=2, max_size=60)


def first_rows(views: list[int]) -> np.ndarray:
    return np.cumsum([0, *views])


def owners(rows: np.ndarray, first: np.ndarray) -> np.ndarray:
    return np.searchsorted(first, rows, side="right") - 1


@given(SEED, VIEW_COUNTS, st.integers(1, 100), st.booleans())
def test_triplets_are_of_two_views_of_a_point_and_of_another_point(seed, views, n, mined):
    first = first_rows([*views, 2])
    points = len(first) - 1
    if mined:
        settings = MinedTriplets(batch=n, candidates=1024)
        miner = Miner(settings, np.zeros(points, int), seed, first_rows=first)
        miner.rows = torch.from_numpy(
            sample(
                RandomTriplets(batch=50), np.zeros(points, int), rng_for(seed, "a", 0),
                first_rows=first,
            ).rows
        )  # fmt: skip
        batch = miner.batch(rng_for(seed, "b", 0))
    else:
        batch = sample(
            RandomTriplets(batch=n), np.zeros(points, int), rng_for(seed, "a", 0), first_rows=first
        )
    anchor, positive, negative = batch.rows
    assert (owners(batch.rows, first) == batch.labels).all()
    assert (batch.labels[0] == batch.labels[1]).all()
    assert (batch.labels[0] != batch.labels[2]).all()
    assert (anchor != positive).all()
    assert negative.max() < first[-1]


@given(SEED, VIEW_COUNTS, st.integers(2, 20))
def test_pairs_are_of_distinct_points_with_two_views(seed, views, n):
    first = first_rows(views)
    eligible = sum(v > 1 for v in views)
    drawing = (Pairs(batch=n), np.zeros(len(views), int), rng_for(seed, "a", 0))
    if eligible < n:
        with pytest.raises(UserError, match="2 views"):
            sample(*drawing, first_rows=first)
        return
    batch = sample(*drawing, first_rows=first)
    assert (owners(batch.rows, first) == batch.labels).all()
    assert (batch.labels[0] == batch.labels[1]).all()
    assert len(set(batch.labels[0].tolist())) == n
    assert (batch.rows[0] != batch.rows[1]).all()


@given(SEED, VIEW_COUNTS, st.integers(2, 16), st.integers(2, 16))
def test_pxk_takes_points_with_k_views_and_none_twice(seed, views, s, k):
    first = first_rows(views)
    drawing = (PKSampler(groups=s, views=k), np.zeros(len(views), int), rng_for(seed, "a", 0))
    if sum(v >= k for v in views) < s:
        with pytest.raises(UserError, match=f"{k} views"):
            sample(*drawing, first_rows=first)
        return
    batch = sample(*drawing, first_rows=first)
    rows = batch.rows.reshape(s, k)
    assert (owners(rows, first) == batch.labels.reshape(s, k)).all()
    assert (owners(rows, first) == owners(rows, first)[:, :1]).all()
    assert len(np.unique(rows)) == s * k
    assert len(np.unique(owners(rows, first))) == s


def test_every_view_of_a_point_is_drawn_alike():
    first = first_rows([3, 7, 2])
    points = np.zeros(3, int)
    rng = rng_for(0, "a", 0)
    drawn = np.zeros(12)
    for _ in range(2000):
        rows = sample(PKSampler(groups=2, views=2), points, rng, first_rows=first).rows
        drawn += np.bincount(rows.ravel(), minlength=12)
    shares = np.split(drawn, first[1:-1])
    assert all(abs(len(s) * s / s.sum() - 1).max() < 0.1 for s in shares)


@pytest.mark.parametrize(
    ("sampler", "rows"),
    [
        (PKSampler(groups=2, views=3), [[133, 131, 139, 38, 39, 34]]),
        (Pairs(batch=4), [[50, 143, 110, 64], [52, 142, 108, 75]]),
        (RandomTriplets(batch=3), [[101, 67, 113], [103, 66, 127], [31, 110, 75]]),
    ],
)
def test_batches_of_stores_with_levels_are_those_of_version_0_2(sampler, rows):
    """The rows were drawn before points could have other numbers of views."""
    assert sample(sampler, np.zeros(9, int), rng_for(5, "batch", 2)).rows.tolist() == rows


def test_tough_positives_need_levels():
    with pytest.raises(UserError, match="no levels"):
        sample(
            RandomTriplets(batch=4, tough_until=1), np.zeros(3, int), rng_for(0, "a", 0),
            first_rows=first_rows([4, 4, 4]),
        )  # fmt: skip
