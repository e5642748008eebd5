"""Configuration of a trial: ``TrialConfig`` and its parts, as frozen values.

Every choice is a discriminated union, so that invalid combinations cannot be represented, and an
unknown key is an error. ``TrialConfig.model_validate_json(c.model_dump_json()) == c`` always.
Class names of version 0.1.0 are still found, with a warning.
"""

from typing import Any

from hpsearch.config.base import warn_of_old_name
from hpsearch.config.loss_schedules import (
    FixedLossSteps,
    Loss,
    SteppedLoss,
    collapse_value_of,
    loss_stages,
)
from hpsearch.config.losses import (
    AngularModulation,
    BatchAll,
    BatchHard,
    BatchTriplet,
    Contrastive,
    DynamicSoftMargin,
    FaceNet,
    HardNet,
    HybridSimilarity,
    InBatchHard,
    InfoNCE,
    Library,
    Percentile,
    Restoration,
    SingleLoss,
    SmoothAP,
    Triplet,
)
from hpsearch.config.networks import (
    Clean,
    Compression,
    ConvNet,
    Denoised,
    Denoiser,
    DenoiserTraining,
    Descriptor,
    DnCNN,
    DnCNNTransfer,
    HeNormal,
    Input,
    L2Net,
    Mixed,
    Noisy,
    Orthogonal,
    ShallowUNet,
    Stage,
    UNet,
)
from hpsearch.config.optimizers import (
    DEFAULT_COMPUTE,
    EMA,
    SGD,
    Adam,
    AdamW,
    ComputeConfig,
    Constant,
    Cosine,
    Device,
    Exponential,
    LinearDecay,
    OneCycle,
    Optimizer,
    Precision,
    Schedule,
    StepDecay,
)
from hpsearch.config.regularizers import (
    GOR,
    SOSR,
    Distillation,
    NormDifference,
    Regularizer,
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
    sampling_stages,
)
from hpsearch.config.trial import Augmentation, TrialConfig, WarmStart
from hpsearch.config.triplets import (
    BatchMiner,
    Distance,
    DistanceWeightedMiner,
    HardMargin,
    Margin,
    PercentileMiner,
    SemiHardMiner,
    SoftMargin,
)
from hpsearch.patch_views import VIEWS

__all__ = [
    "DEFAULT_COMPUTE",
    "EMA",
    "GOR",
    "SGD",
    "SOSR",
    "VIEWS",
    "Adam",
    "AdamW",
    "AngularModulation",
    "Augmentation",
    "BatchAll",
    "BatchHard",
    "BatchMiner",
    "BatchTriplet",
    "Clean",
    "Compression",
    "ComputeConfig",
    "Constant",
    "Contrastive",
    "ConvNet",
    "Cosine",
    "Denoised",
    "Denoiser",
    "DenoiserTraining",
    "Descriptor",
    "Device",
    "Distance",
    "DistanceWeightedMiner",
    "Distillation",
    "DnCNN",
    "DnCNNTransfer",
    "DynamicSoftMargin",
    "Exponential",
    "FaceNet",
    "FixedLossSteps",
    "FixedSteps",
    "HardMargin",
    "HardNet",
    "HeNormal",
    "HybridSimilarity",
    "InBatchHard",
    "InfoNCE",
    "Input",
    "L2Net",
    "Library",
    "LinearDecay",
    "Loss",
    "Margin",
    "MinedTriplets",
    "Mixed",
    "Noisy",
    "NormDifference",
    "OneCycle",
    "Optimizer",
    "Orthogonal",
    "PKSampler",
    "Pairs",
    "Percentile",
    "PercentileMiner",
    "Precision",
    "RandomTriplets",
    "Regularizer",
    "Restoration",
    "Sampler",
    "Sampling",
    "Schedule",
    "SemiHardMiner",
    "ShallowUNet",
    "SingleLoss",
    "SmoothAP",
    "SoftMargin",
    "Stage",
    "StepDecay",
    "Stepped",
    "SteppedLoss",
    "TrialConfig",
    "Triplet",
    "UNet",
    "WarmStart",
    "collapse_value_of",
    "loss_stages",
    "sampling_stages",
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
