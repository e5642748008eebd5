"""What a denoiser pays, and how good it is; all patches in grey levels 0..255."""

import torch
from torch import Tensor

from hpsearch.shapes import Float, Num

PEAK = 255.0


def mean_absolute_error(
    restored: Num[Tensor, "n ..."], clean: Num[Tensor, "n ..."]
) -> Float[Tensor, ""]:
    """Mean over all pixels of |restored − clean|, in grey levels."""
    return (restored.float() - clean.float()).abs().mean()


def mean_squared_error(
    restored: Num[Tensor, "n ..."], clean: Num[Tensor, "n ..."]
) -> Float[Tensor, ""]:
    """Mean over all pixels of (restored − clean)², in squared grey levels."""
    return (restored.float() - clean.float()).square().mean()


def pooled_psnr(restored: Num[Tensor, "n ..."], clean: Num[Tensor, "n ..."]) -> Float[Tensor, ""]:
    """Peak signal-to-noise ratio in dB of the error pooled over all pixels; inf where equal."""
    return _decibels(mean_squared_error(restored, clean))


def mean_patch_psnr(
    restored: Num[Tensor, "n ..."], clean: Num[Tensor, "n ..."]
) -> Float[Tensor, ""]:
    """Mean over patches of each patch's own PSNR in dB; inf if any patch is restored exactly.

    At least ``pooled_psnr``, because the logarithm is concave.
    """
    squares = (restored.float() - clean.float()).square().flatten(1).mean(dim=1)
    return _decibels(squares).mean()


def _decibels(squared_error: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return 10 * torch.log10(PEAK**2 / squared_error)
