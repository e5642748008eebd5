"""Distance, then which triplets or pairs, then what they pay; and what a denoiser pays."""

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
