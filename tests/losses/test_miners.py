import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.config import DistanceWeightedMiner
from hpsearch.losses.miners import (
    all_pair_indices,
    batch_hard_indices,
    mine_triplets,
    percentile_negatives,
    positive_mask,
)


def test_groups_are_blocks_on_the_diagonal():
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    assert torch.equal(positive_mask(4, views=2), expected)


def test_the_hardest_are_the_farthest_positive_and_the_nearest_negative():
    distances = torch.tensor(
        [
            [0.0, 1.0, 3.0, 2.0],
            [1.0, 0.0, 0.5, 9.0],
            [3.0, 0.5, 0.0, 4.0],
            [2.0, 9.0, 4.0, 0.0],
        ]
    )
    mined = batch_hard_indices(distances, positive_mask(4, views=2))
    assert mined.positive.tolist() == [1, 0, 3, 2]
    assert mined.negative.tolist() == [3, 2, 1, 0]


def test_mining_keeps_inside_and_outside_the_group():
    for groups, views in [(2, 2), (3, 5), (7, 3)]:
        n = groups * views
        distances = torch.rand(n, n, generator=torch.Generator().manual_seed(n))
        mined = batch_hard_indices(distances.fill_diagonal_(0), positive_mask(n, views=views))
        anchor = torch.arange(n)
        assert (mined.positive // views == anchor // views).all()
        assert (mined.positive != anchor).all()
        assert (mined.negative // views != anchor // views).all()


def test_all_columns_are_all_positives_and_all_negatives():
    for groups, views in [(2, 2), (4, 3), (3, 5)]:
        n = groups * views
        same = positive_mask(n, views=views).fill_diagonal_(False)
        columns = all_pair_indices(n, views=views)
        for anchor in range(n):
            positive = columns.positive[anchor].sort().values
            negative = columns.negative[anchor].sort().values
            assert positive.tolist() == same[anchor].nonzero().ravel().tolist()
            assert sorted([*positive.tolist(), *negative.tolist(), anchor]) == list(range(n))


@given(n=st.integers(2, 12), q=st.integers(0, 100), seed=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_negatives_stand_at_numpy_s_lower_percentile(n, q, seed):
    distances = np.random.default_rng(seed).random((n, n))
    mined = percentile_negatives(torch.from_numpy(distances), quantile=float(q))
    for i in range(n):
        row, column = np.delete(distances[i], i), np.delete(distances[:, i], i)
        assert distances[i, mined.positive[i]] == np.percentile(row, q, method="lower")
        assert distances[mined.anchor[i], i] == np.percentile(column, q, method="lower")


@pytest.mark.parametrize("q", [0.0, 50.0, 100.0])
def test_a_negative_is_never_its_own_pair_even_when_all_are_equal(q):
    mined = percentile_negatives(torch.zeros(5, 5), quantile=q)
    assert (mined.positive != torch.arange(5)).all()
    assert (mined.anchor != torch.arange(5)).all()


def test_a_distance_weighted_negative_is_drawn_by_the_inverse_density() -> None:
    """Three distances; their shares of many draws are those of 1 / q(d)."""
    miner, d, distances = DistanceWeightedMiner(), 4, torch.full((4, 4), 1.9)
    distances[0, 2], distances[0, 3] = 0.7, 1.2

    def inverse_density(x: float) -> float:
        return x ** (2 - d) * (1 - x * x / 4) ** (-(d - 3) / 2)

    torch.manual_seed(0)
    draws = [
        int(mine_triplets(distances, miner, views=2, descriptor_dim=d).negative[0, 0])
        for _ in range(4000)
    ]
    expected = inverse_density(0.7) / (inverse_density(0.7) + inverse_density(1.2))
    assert set(draws) == {2, 3}
    assert np.mean(np.array(draws) == 2) == pytest.approx(expected, abs=0.03)
    far = [
        int(mine_triplets(distances, miner, views=2, descriptor_dim=d).negative[1, 0])
        for _ in range(200)
    ]
    assert 60 < sum(x == 2 for x in far) < 140, "all are beyond the cutoff: any of them"


def test_near_negatives_count_as_the_cutoff() -> None:
    distances = torch.full((4, 4), 0.0)
    distances[0, 3] = 0.5
    torch.manual_seed(0)
    draws = [
        int(
            mine_triplets(distances, DistanceWeightedMiner(), views=2, descriptor_dim=128).negative[
                0, 0
            ]
        )
        for _ in range(400)
    ]
    assert 140 < sum(x == 2 for x in draws) < 260
