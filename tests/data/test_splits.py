import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.data.splits import HPATCHES_SEQUENCES, TEST_SEQUENCES, folds, split_for
from hpsearch.errors import UserError

NAMES = st.lists(
    st.builds("{}_{}".format, st.sampled_from("iv"), st.text("abcdef", min_size=1, max_size=5)),
    min_size=6,
    max_size=60,
    unique=True,
)


def everything(split):
    return [*split.train, *split.validation, *split.test]


def test_official_lists_have_their_published_sizes():
    assert len(HPATCHES_SEQUENCES) == 116
    assert sum(n.startswith("i_") for n in HPATCHES_SEQUENCES) == 57
    for name in "abc":
        assert len(set(TEST_SEQUENCES[name])) == 40
        assert sum(n.startswith("i_") for n in TEST_SEQUENCES[name]) == 20
        assert set(TEST_SEQUENCES[name]) < set(HPATCHES_SEQUENCES)
    a, b, c = (set(TEST_SEQUENCES[name]) for name in "abc")
    assert (len(a & b), len(a & c), len(b & c)) == (13, 14, 11)


@pytest.mark.parametrize("name", ["a", "b", "c", "illum", "view"])
def test_official_split_keeps_its_test_list_in_order_and_uses_every_sequence(name):
    split = split_for(HPATCHES_SEQUENCES, name=name)
    assert split.test == TEST_SEQUENCES[name]
    assert sorted(everything(split)) == list(HPATCHES_SEQUENCES)
    assert split.validation


def test_illum_trains_on_viewpoint():
    split = split_for(HPATCHES_SEQUENCES, name="illum")
    assert {n[0] for n in (*split.train, *split.validation)} == {"v"}


def test_full_has_no_training_part():
    split = split_for(HPATCHES_SEQUENCES, name="full")
    with pytest.raises(UserError, match="'full' has no train part"):
        split.part("train")
    assert len(split.part("test")) == 116


def test_validation_is_balanced_over_kinds():
    split = split_for(HPATCHES_SEQUENCES, name="a", validation_share=0.2)
    kinds = [n[0] for n in split.validation]
    assert (kinds.count("i"), kinds.count("v")) == (7, 8)  # 20 % of 37 and of 39


@given(NAMES, st.integers(0, 9), st.floats(0, 0.9))
def test_no_sequence_is_in_two_parts_and_none_is_lost(names, seed, share):
    split = split_for(names, name="seeded", seed=seed, validation_share=share)
    assert sorted(everything(split)) == sorted(names)
    assert split.train
    assert split == split_for(names[::-1], name="seeded", seed=seed, validation_share=share)


@given(NAMES, st.integers(2, 5), st.integers(0, 9))
def test_folds_validate_each_sequence_once_and_never_touch_test(names, k, seed):
    split = split_for(names, name="seeded")
    outside = sorted((*split.train, *split.validation))
    if k > len(outside):
        with pytest.raises(UserError, match="num_folds must lie in"):
            folds(split, k, seed)
        return
    parts = folds(split, k, seed)
    assert sorted(n for p in parts for n in p.validation) == outside
    for part in parts:
        assert part.test == split.test
        assert sorted((*part.train, *part.validation)) == outside
        assert not set(part.train) & set(part.validation)


def test_folds_spread_both_kinds():
    split = split_for(HPATCHES_SEQUENCES, name="a")
    for part in folds(split, 5):
        share = sum(n[0] == "i" for n in part.validation) / len(part.validation)
        assert 0.4 < share < 0.6


def test_auto_prefers_the_own_split_then_the_official_one():
    names = ["i_x", "i_y", "i_z", "v_x", "v_y", "v_z"]
    assert split_for(names, test=["i_y"]).test == ("i_y",)
    assert split_for(HPATCHES_SEQUENCES).name == "a"
    assert split_for(names).name == "seeded"
    # Some sequences of the release with nothing to test on, or to train on, by the official list.
    assert split_for(["i_nuts", "v_wall", "v_war"]).name == "seeded"
    assert split_for(list(TEST_SEQUENCES["a"])).name == "seeded"


def test_a_part_of_the_release_keeps_its_own_share_of_the_test_list():
    names = [*TEST_SEQUENCES["a"][:5], "v_wall", "v_wormhole", "i_nuts"]
    assert split_for(names, name="a").test == TEST_SEQUENCES["a"][:5]


@pytest.mark.parametrize(
    ("names", "name", "message"),
    [
        (["i_x", "v_y"], "d", "unknown split 'd'"),
        (["i_x", "v_y"], "a", "'i_x'"),
        (["i_nuts", "v_wall"], "a", "none of these sequences"),
    ],
)
def test_a_split_that_does_not_apply_says_what_does(names, name, message):
    with pytest.raises(UserError, match=message):
        split_for(names, name=name)
