"""Configuration of a trial: ``TrialConfig`` and its parts, as frozen values.

Every choice is a discriminated union, so that invalid combinations cannot be represented, and an
unknown key is an error. ``TrialConfig.model_validate_json(c.model_dump_json()) == c`` always.
Class names of version 0.1.0 are still found, with a warning.
"""

from typing import Any

from hpsearch.config.base import warn_of_old_name
from hpsearch.config.losses import (
    BatchAll,
    BatchHard,
    Contrastive,
    Distance,
    FaceNet,
    HardMargin,
    HardNet,
    InBatchHard,
    Loss,
    Margin,
    Percentile,
    Restoration,
    SoftMargin,
    Triplet,
)
from hpsearch.config.networks import (
    Clean,
    Denoised,
    Denoiser,
    DenoiserTraining,
    Descriptor,
    DnCNN,
    DnCNNTransfer,
    Input,
    L2Net,
    Mixed,
    Noisy,
    ShallowUNet,
    UNet,
)
from hpsearch.config.optimizers import (
    DEFAULT_COMPUTE,
    SGD,
    Adam,
    AdamW,
    ComputeConfig,
    Constant,
    Cosine,
    Device,
    Exponential,
    Optimizer,
    Precision,
    Schedule,
    StepDecay,
)
from hpsearch.config.sampling import (
    FixedSteps,
    MinedTriplets,
    Pairs,
    PKSampler,
    RandomTriplets,
    Sampler,
    Sampling,
    Stepped,
)
from hpsearch.config.trial import Augmentation, TrialConfig, WarmStart
from hpsearch.patch_views import VIEWS

__all__ = [
    "DEFAULT_COMPUTE",
    "SGD",
    "VIEWS",
    "Adam",
    "AdamW",
    "Augmentation",
    "BatchAll",
    "BatchHard",
    "Clean",
    "ComputeConfig",
    "Constant",
    "Contrastive",
    "Cosine",
    "Denoised",
    "Denoiser",
    "DenoiserTraining",
    "Descriptor",
    "Device",
    "Distance",
    "DnCNN",
    "DnCNNTransfer",
    "Exponential",
    "FaceNet",
    "FixedSteps",
    "HardMargin",
    "HardNet",
    "InBatchHard",
    "Input",
    "L2Net",
    "Loss",
    "Margin",
    "MinedTriplets",
    "Mixed",
    "Noisy",
    "Optimizer",
    "PKSampler",
    "Pairs",
    "Percentile",
    "Precision",
    "RandomTriplets",
    "Restoration",
    "Sampler",
    "Sampling",
    "Schedule",
    "ShallowUNet",
    "SoftMargin",
    "StepDecay",
    "Stepped",
    "TrialConfig",
    "Triplet",
    "UNet",
    "WarmStart",
]

FORMER_NAMES = {
    "SxK": "PKSampler",
    "Optimiser": "Optimizer",
    "DenoiserTrial": "DenoiserTraining",
    "Computing": "ComputeConfig",
    "AS_FOUND": "DEFAULT_COMPUTE",
}
"""Names of version 0.1.0, and the present ones."""


def __getattr__(name: str) -> Any:
    present = FORMER_NAMES.get(name)
    if present is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_of_old_name(f"{name} is {present}")
    return globals()[present]
