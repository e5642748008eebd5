"""Losses: distances, miners, metric losses, and restoration losses of denoisers."""

from hpsearch.losses.build import BatchLoss, build_loss, build_restoration
from hpsearch.losses.restoration import (
    mean_absolute_error,
    mean_patch_psnr,
    mean_squared_error,
    mean_ssim,
    pooled_psnr,
)

__all__ = [
    "BatchLoss",
    "build_loss",
    "build_restoration",
    "mean_absolute_error",
    "mean_patch_psnr",
    "mean_squared_error",
    "mean_ssim",
    "pooled_psnr",
]
