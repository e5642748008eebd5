"""Training inputs of a descriptor: clean, noisy or denoised patches, by local row."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.config import Clean, Denoised, Input, Mixed, Noisy
from hpsearch.data.patch_store import Patches
from hpsearch.rng import rng_for
from hpsearch.shapes import Float, Int, UInt8
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.denoiser_training import denoised_patches, trained_denoiser
from hpsearch.training.devices import GatherFn, LazyRows, device_resident

InputFn = Callable[[np.ndarray | Tensor, float], Float[Tensor, "n 1 32 32"]]
"""Function from row numbers and spent share of the budget to patches on the device."""


class MixedRows:
    """Array-like view (rows, 32, 32) of uint8 patches, some of them noisy (``Mixed``)."""

    def __init__(self, patches: Patches, config: Mixed) -> None:
        lots = rng_for(config.seed, "mixed input", 0).random(patches.num_rows)
        self._patches, self._noisy = patches, lots < config.noisy_share

    def __getitem__(self, rows: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 32 32"]:
        chosen = self._patches.gather(rows, noisy=False)
        noisy = self._noisy[rows]
        chosen[noisy] = self._patches.gather(rows[noisy], noisy=True)
        return chosen

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self[np.arange(len(self._noisy))]


def training_input(
    config: Input, train: Patches, cache: ArtifactCache, device: torch.device
) -> tuple[nn.Module | None, InputFn]:
    """Denoiser in front of the descriptor, or None, and the input function of its training."""
    match config:
        case Clean():
            return None, constant_input(_stored_patches(train, device, noisy=False))
        case Noisy():
            return None, constant_input(_stored_patches(train, device, noisy=True))
        case Mixed():
            return None, constant_input(device_resident(MixedRows(train, config), device))
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
