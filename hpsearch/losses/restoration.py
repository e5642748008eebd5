"""Restoration losses and metrics of denoisers; patches in gray levels 0..255."""

import torch
from torch import Tensor

from hpsearch.shapes import Float, Num

PEAK_VALUE = 255.0


def mean_absolute_error(
    restored: Num[Tensor, "n ..."], clean: Num[Tensor, "n ..."]
) -> Float[Tensor, ""]:
    """Mean absolute error over all pixels, in gray levels."""
    return (restored.float() - clean.float()).abs().mean()


def mean_squared_error(
    restored: Num[Tensor, "n ..."], clean: Num[Tensor, "n ..."]
) -> Float[Tensor, ""]:
    """Mean squared error over all pixels, in squared gray levels."""
    return (restored.float() - clean.float()).square().mean()


def pooled_psnr(restored: Num[Tensor, "n ..."], clean: Num[Tensor, "n ..."]) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio in dB of the error pooled over all pixels; inf if equal."""
    return _decibels(mean_squared_error(restored, clean))


def mean_patch_psnr(
    restored: Num[Tensor, "n ..."], clean: Num[Tensor, "n ..."]
) -> Float[Tensor, ""]:
    """Mean over patches of each patch's own PSNR in dB; inf if any patch is restored exactly.

    At least ``pooled_psnr``, because the logarithm is concave.
    """
    squares = (restored.float() - clean.float()).square().flatten(1).mean(dim=1)
    return _decibels(squares).mean()


def mean_ssim(restored: Num[Tensor, "n h w"], clean: Num[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """Structural similarity, at most 1, as a mean over patches and over their pixels.

    Pixels whose window extends beyond the patch are excluded; height and width are at least 11.

    Source: Wang et al., IEEE TIP 2004: Gaussian window of 11×11 with σ = 1.5, K = (0.01, 0.03).
    """
    x, y = restored.float(), clean.float()
    down, across = (_gaussian_windows(side, x.device) for side in x.shape[-2:])
    # Second moments of gray levels minus 128 lose fewer digits to the difference below.
    u, v = x - 128, y - 128
    # The window is separable, and products with matrices are faster than a convolution.
    mean_u, mean_v, uu, vv, uv = (down @ z @ across.T for z in (u, v, u * u, v * v, u * v))
    variance = uu - mean_u.square() + vv - mean_v.square()
    covariance = uv - mean_u * mean_v
    mean_x, mean_y = mean_u + 128, mean_v + 128
    c1, c2 = (0.01 * PEAK_VALUE) ** 2, (0.03 * PEAK_VALUE) ** 2
    light = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (light * (2 * covariance + c2) / (variance + c2)).mean()


def _gaussian_windows(side: int, device: torch.device) -> Float[Tensor, "windows side"]:
    """Matrix that averages each whole window of a line of pixels, with Gaussian weights."""
    line = torch.exp(-torch.arange(-5.0, 6.0, device=device).square() / (2 * 1.5**2))
    rows = torch.arange(side - 10, device=device)[:, None]
    windows = torch.zeros(side - 10, side, device=device)
    return windows.scatter(
        1, rows + torch.arange(11, device=device), (line / line.sum()).repeat(side - 10, 1)
    )


def _decibels(squared_error: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return 10 * torch.log10(PEAK_VALUE**2 / squared_error)
