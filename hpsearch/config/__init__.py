"""A trial is one frozen value: ``TrialConfig`` and the unions that it is made of.

Every choice is a discriminated union, so an invalid combination cannot be written down, and an
unknown key is an error. ``TrialConfig.model_validate_json(c.model_dump_json()) == c`` always.
"""

from hpsearch.config.inputs import Clean, Denoised, DenoiserTrial, Input, Noisy
from hpsearch.config.losses import BatchHard, Distance, HardMargin, Loss, Margin, SoftMargin, Triplet
from hpsearch.config.networks import Denoiser, Descriptor, L2Net, ShallowUNet
from hpsearch.config.optimisers import SGD, Adam, Optimiser
from hpsearch.config.sampling import VIEWS, RandomTriplets, Sampler, SxK
from hpsearch.config.trial import TrialConfig

__all__ = [
    "SGD",
    "VIEWS",
    "Adam",
    "BatchHard",
    "Clean",
    "Denoised",
    "Denoiser",
    "DenoiserTrial",
    "Descriptor",
    "Distance",
    "HardMargin",
    "Input",
    "L2Net",
    "Loss",
    "Margin",
    "Noisy",
    "Optimiser",
    "RandomTriplets",
    "Sampler",
    "ShallowUNet",
    "SoftMargin",
    "SxK",
    "TrialConfig",
    "Triplet",
]
