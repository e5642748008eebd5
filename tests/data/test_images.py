import numpy as np
import pytest

from hpsearch.data.arrow_header import NoiseLevels
from hpsearch.data.images import add_noise, area_downsample


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


GRAY = np.full((200, 16, 32, 32), 128, np.uint8)


@pytest.fixture(scope="module")
def residual():
    return add_noise(GRAY, name="i_x", levels=NoiseLevels()).astype(float) - 128


def test_deviation_by_level(residual):
    deviation = residual.std(axis=(0, 2, 3))
    # Rounding to whole grey levels adds a variance of 1/12.
    expected = np.sqrt(np.repeat([10.0, 20.0, 30.0], [6, 5, 5]) ** 2 + 1 / 12)
    np.testing.assert_allclose(deviation, expected, rtol=0.01)
    assert np.abs(residual.mean(axis=(0, 2, 3))).max() < 0.3


def test_noise_is_white_and_gaussian(residual):
    hard = residual[:, 6]
    neighbors = (hard[:, :, 1:] * hard[:, :, :-1]).mean() / hard.var()
    assert abs(neighbors) < 0.01
    kurtosis = (hard**4).mean() / hard.var() ** 2
    assert abs(kurtosis - 3) < 0.05
    assert abs((np.abs(hard) < 20).mean() - 0.6702) < 0.01  # P(|z| < 0.975): below 19.5


def test_noise_depends_on_seed_name_and_view_alone():
    one = add_noise(GRAY[:2], name="i_x", levels=NoiseLevels())
    np.testing.assert_array_equal(one, add_noise(GRAY[:2], name="i_x", levels=NoiseLevels()))
    assert (one != add_noise(GRAY[:2], name="i_y", levels=NoiseLevels())).mean() > 0.9
    assert (one != add_noise(GRAY[:2], name="i_x", levels=NoiseLevels(), seed=1)).mean() > 0.9
    assert (one[:, 1] != one[:, 2]).mean() > 0.9


def test_noise_is_clipped_to_the_range_and_leaves_the_clean_patches():
    clean = np.zeros((3, 16, 32, 32), np.uint8)
    noisy = add_noise(clean, name="i_x", levels=NoiseLevels())
    assert 0.4 < (noisy == 0).mean() < 0.6
    assert noisy.max() < 160
    assert clean.max() == 0


def test_no_noise_is_no_change():
    none = NoiseLevels(easy=0, hard=0, tough=0)
    np.testing.assert_array_equal(add_noise(GRAY[:1], name="x", levels=none), GRAY[:1])
