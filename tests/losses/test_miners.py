import torch

from hpsearch.losses.miners import hardest, same_group


def test_groups_are_blocks_on_the_diagonal():
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    assert torch.equal(same_group(2, 2), expected)


def test_the_hardest_are_the_farthest_positive_and_the_nearest_negative():
    distances = torch.tensor(
        [
            [0.0, 1.0, 3.0, 2.0],
            [1.0, 0.0, 0.5, 9.0],
            [3.0, 0.5, 0.0, 4.0],
            [2.0, 9.0, 4.0, 0.0],
        ]
    )
    mined = hardest(distances, same_group(2, 2))
    assert mined.positive.tolist() == [1, 0, 3, 2]
    assert mined.negative.tolist() == [3, 2, 1, 0]


def test_mining_keeps_inside_and_outside_the_group():
    for groups, views in [(2, 2), (3, 5), (7, 3)]:
        n = groups * views
        distances = torch.rand(n, n, generator=torch.Generator().manual_seed(n))
        mined = hardest(distances.fill_diagonal_(0), same_group(groups, views))
        anchor = torch.arange(n)
        assert (mined.positive // views == anchor // views).all()
        assert (mined.positive != anchor).all()
        assert (mined.negative // views != anchor // views).all()
