"""Training inputs of a descriptor: clean, noisy or denoised patches, by local row."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.config import Clean, Denoised, Input, Noisy
from hpsearch.data.patch_store import Patches
from hpsearch.shapes import Float
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.denoiser_training import denoised_patches, trained_denoiser
from hpsearch.training.devices import GatherFn, LazyRows, device_resident

InputFn = Callable[[np.ndarray | Tensor, float], Float[Tensor, "n 1 32 32"]]
"""Function from row numbers and spent share of the budget to patches on the device."""


def training_input(
    config: Input, train: Patches, cache: ArtifactCache, device: torch.device
) -> tuple[nn.Module | None, InputFn]:
    """Denoiser in front of the descriptor, or None, and the input function of its training."""
    match config:
        case Clean():
            return None, constant_input(_stored_patches(train, device, noisy=False))
        case Noisy():
            return None, constant_input(_stored_patches(train, device, noisy=True))
        case Denoised(denoiser=settings, train_on=train_on, clean_warmup=clean_warmup):
            denoiser = trained_denoiser(settings, train, cache, device)
            if train_on == "clean":
                return denoiser, constant_input(_stored_patches(train, device, noisy=False))
            patches = denoised_patches(settings, train, denoiser, cache, device)
            denoised = device_resident(patches, device)
            if not clean_warmup:
                return denoiser, constant_input(denoised)
            clean = _stored_patches(train, device, noisy=False)
            return denoiser, partial(_early_then_late, clean_warmup, clean, denoised)


def constant_input(gather: GatherFn) -> InputFn:
    """Input function with the same patches throughout."""
    return lambda rows, share: gather(rows)


def _early_then_late(
    until: float, early: GatherFn, late: GatherFn, rows: np.ndarray | Tensor, share: float
) -> Tensor:
    return early(rows) if share < until else late(rows)


def _stored_patches(train: Patches, device: torch.device, *, noisy: bool) -> GatherFn:
    return device_resident(LazyRows(train, noisy=noisy), device)
