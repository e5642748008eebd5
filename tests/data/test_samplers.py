import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import RandomTriplets, SxK
from hpsearch.data.samplers import sample, stream
from hpsearch.errors import UserError

SEED = st.integers(0, 2**31)


@given(SEED, st.integers(2, 50), st.integers(1, 200))
def test_random_triplets_keep_their_promise(seed, points, n):
    batch = sample(RandomTriplets(batch=n), np.zeros(points, int), stream(seed, "train", 0))
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
    batch = sample(SxK(groups=s, views=k), np.zeros(s + more, int), stream(seed, "train", 0))
    assert batch.rows.shape == (1, s * k)
    points, views = np.divmod(batch.rows.reshape(s, k), 16)
    assert (points == points[:, :1]).all()
    assert len(set(points[:, 0])) == s
    assert all(len(set(row)) == k for row in views)
    assert (batch.labels == batch.rows // 16).all()
    assert points.max() < s + more


def test_negatives_and_views_are_uniform():
    batch = sample(RandomTriplets(batch=8192), np.zeros(4, int), stream(0, "train", 0))
    anchor, positive, negative = batch.rows
    after = np.bincount((negative // 16 - anchor // 16) % 4, minlength=4)
    assert after[0] == 0
    assert np.abs(after[1:] / 8192 - 1 / 3).max() < 0.02
    step = np.bincount((positive - anchor) % 16, minlength=16)
    assert step[0] == 0
    assert np.abs(step[1:] / 8192 - 1 / 15).max() < 0.015


def test_a_batch_is_a_function_of_seed_role_and_step():
    def draw(*key):
        return sample(SxK(), np.zeros(500, int), stream(*key)).rows.tolist()

    assert draw(1, "train", 7) == draw(1, "train", 7)
    others = [draw(2, "train", 7), draw(1, "loss", 7), draw(1, "train", 8), draw(1, "train", 0)]
    assert all(draw(1, "train", 7) != other for other in others)


@pytest.mark.parametrize(
    ("sampler", "points", "message"),
    [(SxK(groups=8), 7, "S = 8 groups"), (RandomTriplets(), 1, "at least 2 points")],
)
def test_too_few_points_is_the_users_to_mend(sampler, points, message):
    with pytest.raises(UserError, match=message):
        sample(sampler, np.zeros(points, int), stream(0, "train", 0))


@pytest.mark.parametrize("sampler", [RandomTriplets(batch=341), SxK(groups=256, views=4)])
def test_a_batch_of_1024_patches_costs_less_than_a_millisecond(sampler):
    sequence_of = np.zeros(97_000, int)  # points of the official training part
    costs = []
    for step in range(30):
        start = time.perf_counter()
        sample(sampler, sequence_of, stream(0, "train", step))
        costs.append(time.perf_counter() - start)
    # The quickest of many, because a busy machine must not fail the test.
    assert min(costs) < 1e-3
