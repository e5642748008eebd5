import numpy as np

from hpsearch.data.resize import area_downsample


def area_weights() -> np.ndarray:
    """The share of each old pixel in each new one, by counting fine steps: 32 an old pixel."""
    weights = np.zeros((32, 65))
    for step in range(65 * 32):
        weights[step // 65, step // 32] += 1 / 65
    return weights


def test_a_new_pixel_is_the_mean_of_the_area_that_it_covers():
    patches = np.random.default_rng(0).integers(0, 256, (20, 65, 65), dtype=np.uint8)
    weights = area_weights()
    np.testing.assert_allclose(weights.sum(1), 1)
    exact = weights @ patches @ weights.T
    small = area_downsample(patches)
    assert small.dtype == np.uint8
    assert np.abs(small - exact).max() <= 0.5 + 1e-9


def test_the_range_is_kept_and_neighbors_stay_apart():
    patches = np.zeros((3, 65, 65), np.uint8)
    patches[1] = 255
    small = area_downsample(patches)
    assert (small[[0, 2]] == 0).all()
    assert (small[1] == 255).all()
