"""Distance, then which triplets, then what they pay; and what a denoiser pays."""

from hpsearch.losses.build import BatchLoss, build_loss
from hpsearch.losses.restoration import (
    mean_absolute_error,
    mean_patch_psnr,
    mean_squared_error,
    pooled_psnr,
)

__all__ = [
    "BatchLoss",
    "build_loss",
    "mean_absolute_error",
    "mean_patch_psnr",
    "mean_squared_error",
    "pooled_psnr",
]
