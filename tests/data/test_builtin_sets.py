import numpy as np
import pytest

from hpsearch.data.builtin_sets import BUILTIN_SETS, open_builtin, photograph
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.splits import split_for
from hpsearch.errors import UserError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    calls = []
    folder = tmp_path_factory.mktemp("embedded")
    path = open_builtin("tiny", folder, progress=lambda *what: calls.append(what), workers=2)
    return path, calls


def test_tiny_is_what_its_recipe_says(tiny):
    path, calls = tiny
    store = PatchStore.open(path)
    recipe = BUILTIN_SETS["tiny"]
    assert store.names == recipe.sequences
    assert store.counts == (32,) * len(store.names)
    assert calls == [(i, len(store.names), n) for i, n in enumerate(store.names, start=1)]
    deviation = store.clean.reshape(*store.clean.shape[:2], -1).std(-1)
    assert 35 < deviation.mean() < 50  # genuine HPatches references have 46
    assert (deviation < 10).mean() < 0.05
    store.verify()


def test_tiny_splits_into_two_sequences_a_part(tiny):
    split = PatchStore.open(tiny[0]).split()
    assert split.test == BUILTIN_SETS["tiny"].test
    assert [len(split.part(p)) for p in ("train", "validation", "test")] == [2, 2, 2]
    assert {n[0] for n in split.validation} == {"i", "v"}


def test_mini_splits_by_photograph():
    split = split_for(BUILTIN_SETS["mini"].sequences)
    assert split.name == "mini"
    assert set(split.test) == {"i_astronaut", "v_coffee", "i_ihc", "v_gravel"}
    assert len(split.validation) == 2


def test_views_lie_further_from_the_reference_from_easy_to_tough(tiny):
    """Matching by normalised pixels: easy > hard > tough, as for every descriptor on HPatches."""
    store = PatchStore.open(tiny[0])
    rates = {}
    for level, first in (("easy", 1), ("hard", 6), ("tough", 11)):
        hits = [
            _nearest_is_right(store.clean[store.sequence_of == s], view)
            for s in range(len(store.names))
            for view in range(first, first + 5)
        ]
        rates[level] = np.mean(hits)
    assert rates["easy"] > 1.5 * rates["hard"] > 2 * rates["tough"] > 4 / 32


def _nearest_is_right(patches, view):
    small = patches[:, [0, view]].astype(float).reshape(-1, 2, 16, 2, 16, 2).mean((3, 5))
    flat = small.reshape(len(small), 2, -1)
    flat = flat - flat.mean(-1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=-1, keepdims=True) + 1e-6
    return ((flat[:, 0] @ flat[:, 1].T).argmax(1) == np.arange(len(flat))).mean()


def test_built_once_then_found(tiny):
    path, _ = tiny
    before = path.stat().st_mtime_ns
    assert open_builtin("tiny", path.parent) == path
    assert path.stat().st_mtime_ns == before


def test_the_same_bytes_in_one_process_and_in_many(tiny, tmp_path):
    again = open_builtin("tiny", tmp_path, workers=1)
    assert again.read_bytes() == tiny[0].read_bytes()


def test_another_photograph_under_a_known_name_is_refused():
    with pytest.raises(UserError, match="photograph 'camera'"):
        photograph("camera", known={"camera": "0" * 64})


def test_an_unknown_set_is_refused(tmp_path):
    with pytest.raises(UserError, match="choose one of mini, tiny"):
        open_builtin("huge", tmp_path)
