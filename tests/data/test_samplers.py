import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import Pairs, PKSampler, RandomTriplets
from hpsearch.data.samplers import sample
from hpsearch.errors import UserError
from hpsearch.rng import rng_for

SEED = st.integers(0, 2**31)


@given(SEED, st.integers(2, 50), st.integers(1, 200))
def test_random_triplets_keep_their_promise(seed, points, n):
    batch = sample(RandomTriplets(batch=n), np.zeros(points, int), rng_for(seed, "train", 0))
    anchor, positive, negative = batch.rows
    assert batch.rows.shape == batch.labels.shape == (3, n)
    assert (batch.rows // 16 == batch.labels).all()
    assert (anchor // 16 == positive // 16).all()
    assert (anchor != positive).all()
    assert (anchor // 16 != negative // 16).all()
    assert batch.rows.min() >= 0
    assert batch.rows.max() < 16 * points


@given(SEED, st.integers(2, 40), st.integers(2, 16), st.integers(0, 60))
def test_sxk_has_distinct_points_and_views_group_after_group(seed, s, k, more):
    batch = sample(PKSampler(groups=s, views=k), np.zeros(s + more, int), rng_for(seed, "train", 0))
    assert batch.rows.shape == (1, s * k)
    points, views = np.divmod(batch.rows.reshape(s, k), 16)
    assert (points == points[:, :1]).all()
    assert len(set(points[:, 0])) == s
    assert all(len(set(row)) == k for row in views)
    assert (batch.labels == batch.rows // 16).all()
    assert points.max() < s + more


def test_negatives_and_views_are_uniform():
    batch = sample(RandomTriplets(batch=8192), np.zeros(4, int), rng_for(0, "train", 0))
    anchor, positive, negative = batch.rows
    after = np.bincount((negative // 16 - anchor // 16) % 4, minlength=4)
    assert after[0] == 0
    assert np.abs(after[1:] / 8192 - 1 / 3).max() < 0.02
    step = np.bincount((positive - anchor) % 16, minlength=16)
    assert step[0] == 0
    assert np.abs(step[1:] / 8192 - 1 / 15).max() < 0.015


def test_a_batch_is_a_function_of_seed_role_and_step():
    def draw(*key):
        return sample(PKSampler(), np.zeros(500, int), rng_for(*key)).rows.tolist()

    assert draw(1, "train", 7) == draw(1, "train", 7)
    others = [draw(2, "train", 7), draw(1, "loss", 7), draw(1, "train", 8), draw(1, "train", 0)]
    assert all(draw(1, "train", 7) != other for other in others)


@pytest.mark.parametrize(
    ("sampler", "points", "message"),
    [
        (PKSampler(groups=8), 7, "8 distinct points, but the patches have 7"),
        (Pairs(batch=8), 7, "8 distinct points, but the patches have 7"),
        (RandomTriplets(), 1, "at least 2 points"),
        (RandomTriplets(far_from=0), 9, "at least 2 sequences"),
    ],
)
def test_too_few_points_is_the_users_to_fix(sampler, points, message):
    with pytest.raises(UserError, match=message):
        sample(sampler, np.zeros(points, int), rng_for(0, "train", 0))


@given(SEED, st.integers(2, 40), st.integers(0, 60))
def test_pairs_are_two_views_of_distinct_points(seed, n, more):
    batch = sample(Pairs(batch=n), np.zeros(n + more, int), rng_for(seed, "train", 0))
    assert batch.rows.shape == (2, n)
    assert (batch.rows // 16 == batch.labels).all()
    assert (batch.labels[0] == batch.labels[1]).all()
    assert len(set(batch.labels[0])) == n
    assert (batch.rows[0] != batch.rows[1]).all()
    assert batch.labels.max() < n + more


@given(SEED, st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_far_negatives_are_of_another_sequence(seed, counts):
    sequence_of = np.repeat(np.arange(len(counts)), counts)
    rng = rng_for(seed, "train", 0)
    anchor, _, negative = sample(RandomTriplets(batch=64, far_from=0), sequence_of, rng).labels
    assert (sequence_of[anchor] != sequence_of[negative]).all()


def test_far_negatives_are_uniform_over_the_other_sequences():
    sequence_of = np.repeat([0, 1, 2], [2, 3, 1])
    batch = sample(RandomTriplets(batch=8192, far_from=0), sequence_of, rng_for(0, "train", 0))
    anchor, _, negative = batch.labels
    met = np.bincount(negative[sequence_of[anchor] == 1], minlength=6)
    np.testing.assert_allclose(met / met.sum(), [1 / 3, 1 / 3, 0, 0, 0, 1 / 3], atol=0.03)


def test_tough_positives_are_tough_views():
    batch = sample(RandomTriplets(batch=512, tough_until=1), np.zeros(9, int), rng_for(0, "t", 0))
    anchor, positive, _ = batch.rows
    assert set(positive % 16) == {11, 12, 13, 14, 15}
    assert set(anchor % 16) == set(range(16))
    assert (anchor != positive).all()


def test_a_curriculum_goes_by_the_share_of_the_budget():
    curriculum = RandomTriplets(batch=512, tough_until=0.2, far_from=0.9)
    sequence_of = np.repeat(np.arange(3), 5)

    def stage(progress):
        batch = sample(curriculum, sequence_of, rng_for(0, "train", 0), progress=progress)
        tough = (batch.rows[1] % 16 >= 11).all()
        far = (sequence_of[batch.labels[0]] != sequence_of[batch.labels[2]]).all()
        return bool(tough), bool(far)

    stages = [stage(p) for p in (0, 0.19, 0.2, 0.89, 0.9, 0.99)]
    assert stages == [(True, False)] * 2 + [(False, False)] * 2 + [(False, True)] * 2
    with pytest.raises(AssertionError, match="needs progress"):
        sample(curriculum, sequence_of, rng_for(0, "train", 0))


SAMPLERS_OF_1024 = [
    RandomTriplets(batch=341),
    RandomTriplets(batch=341, far_from=0),
    Pairs(batch=512),
    PKSampler(groups=256, views=4),
]


@pytest.mark.parametrize("sampler", SAMPLERS_OF_1024)
def test_a_batch_takes_memory_by_its_size_and_far_negatives_a_few_bytes_a_point(sampler):
    """So its time is not that of the set either, but for one pass where negatives lie far."""
    sequence_of = np.repeat(np.arange(76), 1280)  # as many points as the official training part
    sample(sampler, sequence_of, rng_for(0, "train", 0))
    tracemalloc.start()
    sample(sampler, sequence_of, rng_for(0, "train", 1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    far = getattr(sampler, "far_from", 1.0) < 1
    assert peak < 1024 * 100 + (10 * len(sequence_of) if far else 0)
