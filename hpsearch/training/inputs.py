"""What a descriptor is trained on: clean, noisy or denoised patches, by local row."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.config import Clean, Denoised, Input, Noisy
from hpsearch.data.patch_store import Patches
from hpsearch.shapes import Float
from hpsearch.training.artifact_cache import Artifacts
from hpsearch.training.denoiser_training import denoised_patches, trained_denoiser
from hpsearch.training.devices import Gather, Rows, resident

Feed = Callable[[np.ndarray | Tensor, float], Float[Tensor, "n 1 32 32"]]
"""Row numbers and the share of the budget that is spent in, patches on the device out."""


def training_input(
    config: Input, train: Patches, artifacts: Artifacts, device: torch.device
) -> tuple[nn.Module | None, Feed]:
    """The denoiser that stands in front, if any, and the patches that the descriptor trains on."""
    match config:
        case Clean():
            return None, always(_stored(train, device, noisy=False))
        case Noisy():
            return None, always(_stored(train, device, noisy=True))
        case Denoised(denoiser=settings, train_on=train_on, clean_first=clean_first):
            denoiser = trained_denoiser(settings, train, artifacts, device)
            if train_on == "clean":
                return denoiser, always(_stored(train, device, noisy=False))
            patches = denoised_patches(settings, train, denoiser, artifacts, device)
            denoised = resident(patches, device)
            if not clean_first:
                return denoiser, always(denoised)
            clean = _stored(train, device, noisy=False)
            return denoiser, partial(_first, clean_first, clean, denoised)


def always(gather: Gather) -> Feed:
    """The same patches throughout."""
    return lambda rows, share: gather(rows)


def _first(
    until: float, early: Gather, late: Gather, rows: np.ndarray | Tensor, share: float
) -> Tensor:
    return early(rows) if share < until else late(rows)


def _stored(train: Patches, device: torch.device, *, noisy: bool) -> Gather:
    return resident(Rows(train, noisy=noisy), device)
