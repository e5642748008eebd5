"""Losses: distances, miners, metric losses, and restoration losses of denoisers."""

from hpsearch.losses.build import (
    CALLS_OF_FORM,
    BatchLoss,
    build_loss,
    build_regularization,
    build_restoration,
    collapse_value,
    initial_state,
)
from hpsearch.losses.library import seed_library
from hpsearch.losses.regularizers import similarity_difference
from hpsearch.losses.restoration import (
    mean_absolute_error,
    mean_patch_psnr,
    mean_squared_error,
    mean_ssim,
    pooled_psnr,
)

__all__ = [
    "CALLS_OF_FORM",
    "BatchLoss",
    "build_loss",
    "build_regularization",
    "build_restoration",
    "collapse_value",
    "initial_state",
    "mean_absolute_error",
    "mean_patch_psnr",
    "mean_squared_error",
    "mean_ssim",
    "pooled_psnr",
    "seed_library",
    "similarity_difference",
]
