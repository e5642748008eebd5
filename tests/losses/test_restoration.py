import math

import numpy as np
import pytest
import torch

from hpsearch.losses import (
    build_restoration,
    mean_absolute_error,
    mean_patch_psnr,
    mean_squared_error,
    mean_ssim,
    pooled_psnr,
)


def pair(errors):
    """Patches of 2×2 whose every pixel is off by the patch's error."""
    clean = torch.full((len(errors), 2, 2), 100.0)
    return clean + torch.tensor(errors)[:, None, None], clean


def test_errors_are_in_gray_levels():
    restored, clean = pair([3.0, -5.0])
    assert float(mean_absolute_error(restored, clean)) == 4.0
    assert float(mean_squared_error(restored, clean)) == 17.0


def test_the_two_psnrs_average_in_different_places():
    restored, clean = pair([1.0, 10.0])
    assert float(pooled_psnr(restored, clean)) == pytest.approx(
        10 * math.log10(255**2 / ((1 + 100) / 2)), rel=1e-6
    )
    assert float(mean_patch_psnr(restored, clean)) == pytest.approx(
        (10 * math.log10(255**2 / 1) + 10 * math.log10(255**2 / 100)) / 2, rel=1e-6
    )


def test_a_perfect_restoration_has_infinite_psnr():
    restored, clean = pair([0.0, 0.0])
    assert math.isinf(pooled_psnr(restored, clean))
    assert math.isinf(mean_patch_psnr(restored, clean))


def test_uint8_patches_do_not_wrap_around():
    dark = torch.zeros(1, 2, 2, dtype=torch.uint8)
    assert float(mean_absolute_error(dark, dark + 1)) == 1.0
    assert float(mean_squared_error(dark, dark + 20)) == 400.0


def test_ssim_equals_scikit_image():
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    rng = np.random.default_rng(0)
    clean = rng.normal(128, 40, (4, 32, 32)).cumsum(2).clip(0, 255).astype(np.uint8)
    noisy = (clean + rng.normal(0, 20, clean.shape)).round().clip(0, 255).astype(np.uint8)
    expected = np.mean(
        [
            structural_similarity(
                x.astype(np.float64),
                y.astype(np.float64),
                data_range=255,
                gaussian_weights=True,
                use_sample_covariance=False,
            )
            for x, y in zip(noisy, clean, strict=True)
        ]
    )
    got = mean_ssim(torch.from_numpy(noisy), torch.from_numpy(clean))
    assert float(got) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("level", [0, 7, 255])
def test_ssim_of_equal_patches_is_one(level):
    flat = torch.full((2, 16, 16), level, dtype=torch.uint8)
    assert float(mean_ssim(flat, flat)) == pytest.approx(1, abs=1e-6)


def test_a_denoiser_minimizes_the_error_that_its_settings_name():
    restored, clean = pair([3.0, -5.0])
    assert float(build_restoration("mae")(restored, clean)) == 4.0
    assert float(build_restoration("mse")(restored, clean)) == 17.0
