"""What a descriptor is trained on: clean, noisy or denoised patches, by local row."""

import torch
from torch import nn

from hpsearch.config import Clean, Denoised, Input, Noisy
from hpsearch.data.store import Patches
from hpsearch.training.artifacts import Artifacts
from hpsearch.training.denoising import denoised_patches, trained_denoiser
from hpsearch.training.devices import Gather, resident
from hpsearch.training.rows import Rows


def training_input(
    config: Input, train: Patches, artifacts: Artifacts, device: torch.device
) -> tuple[nn.Module | None, Gather]:
    """The denoiser that stands in front, if any, and the patches that the descriptor trains on."""
    match config:
        case Clean():
            return None, resident(Rows(train, noisy=False), device)
        case Noisy():
            return None, resident(Rows(train, noisy=True), device)
        case Denoised(denoiser=settings, train_on=train_on):
            denoiser = trained_denoiser(settings, train, artifacts, device)
            if train_on == "clean":
                return denoiser, resident(Rows(train, noisy=False), device)
            patches = denoised_patches(settings, train, denoiser, artifacts, device)
            return denoiser, resident(patches, device)
