"""A trial is one frozen value: ``TrialConfig`` and the unions that it is made of.

Every choice is a discriminated union, so an invalid combination cannot be written down, and an
unknown key is an error. ``TrialConfig.model_validate_json(c.model_dump_json()) == c`` always.
"""

from hpsearch.config.augmentation import Augmentation
from hpsearch.config.computing import AS_FOUND, Computing, Device, Precision
from hpsearch.config.inputs import Clean, Denoised, DenoiserTrial, Input, Noisy
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
    Denoiser,
    Descriptor,
    DnCNN,
    DnCNNTransfer,
    L2Net,
    ShallowUNet,
    UNet,
)
from hpsearch.config.optimisers import SGD, Adam, AdamW, Optimiser
from hpsearch.config.sampling import (
    VIEWS,
    FixedSteps,
    MinedTriplets,
    Pairs,
    RandomTriplets,
    Sampler,
    Sampling,
    Stepped,
    SxK,
)
from hpsearch.config.schedules import Constant, Cosine, Exponential, Schedule, StepDecay
from hpsearch.config.trial import TrialConfig
from hpsearch.config.warm_start import WarmStart

__all__ = [
    "AS_FOUND",
    "SGD",
    "VIEWS",
    "Adam",
    "AdamW",
    "Augmentation",
    "BatchAll",
    "BatchHard",
    "Clean",
    "Computing",
    "Constant",
    "Contrastive",
    "Cosine",
    "Denoised",
    "Denoiser",
    "DenoiserTrial",
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
    "Noisy",
    "Optimiser",
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
    "SxK",
    "TrialConfig",
    "Triplet",
    "UNet",
    "WarmStart",
]
