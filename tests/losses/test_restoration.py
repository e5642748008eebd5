import math

import pytest
import torch

from hpsearch.losses import (
    mean_absolute_error,
    mean_patch_psnr,
    mean_squared_error,
    pooled_psnr,
)


def pair(errors):
    """Patches of 2×2 whose every pixel is off by the patch's error."""
    clean = torch.full((len(errors), 2, 2), 100.0)
    return clean + torch.tensor(errors)[:, None, None], clean


def test_errors_are_in_grey_levels():
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
