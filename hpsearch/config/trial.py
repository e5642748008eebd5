"""One trial as one value."""

from typing import Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig
from hpsearch.config.losses import (
    BatchAll,
    BatchHard,
    Contrastive,
    FaceNet,
    HardMargin,
    HardNet,
    InBatchHard,
    Loss,
    Percentile,
    Triplet,
)
from hpsearch.config.networks import AnyDescriptor, Input, L2Net, Noisy
from hpsearch.config.optimizers import SGD, Constant, Optimizer, Schedule
from hpsearch.config.sampling import (
    FixedSteps,
    MinedTriplets,
    Pairs,
    PKSampler,
    RandomTriplets,
    Sampling,
    Stepped,
)


class WarmStart(FrozenConfig):
    """Weights of a descriptor trained on random triplets first, as R3 starts batch hard.

    They depend on this, the descriptor's shape, its input and the patches alone, so trials share
    them, and the trial's own budget is untouched.
    """

    patches: int = Field(default=20_000, ge=1)
    """Budget of the first training, in patches seen."""
    loss: Triplet = Triplet(distance="euclidean", margin=HardMargin())
    sampler: RandomTriplets = RandomTriplets()
    optimiser: Optimizer = SGD()
    seed: int = Field(default=0, ge=0)


class Augmentation(FrozenConfig):
    """Random changes of training patches; the default changes nothing."""

    turns: Literal["none", "patch", "point"] = "none"
    """Flips and 90° rotations: each patch its own, or all patches of a point alike.

    R3: each patch its own nearly doubled the loss; alike for a point was proposed and not tried.
    """
    crop: float = Field(default=0.0, ge=0, le=0.5)
    """Largest share of the side that is cut off, before what is left is scaled up again."""
    brightness: float = Field(default=0.0, ge=0, le=128)
    """Largest shift, in gray levels."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Largest |log| of the factor on the deviation from the patch's mean."""


TRIPLET_SAMPLERS, GROUP_SAMPLERS = (RandomTriplets, MinedTriplets), (PKSampler, Stepped, FixedSteps)

SAMPLERS_OF_LOSS: dict[type, tuple[type, ...]] = {
    Triplet: TRIPLET_SAMPLERS,
    FaceNet: TRIPLET_SAMPLERS,
    BatchAll: GROUP_SAMPLERS,
    BatchHard: GROUP_SAMPLERS,
    InBatchHard: (Pairs,),
    HardNet: (Pairs,),
    Percentile: (Pairs,),
    Contrastive: (*TRIPLET_SAMPLERS, Pairs),
}
"""Which samplers make batches that a loss can read."""

UNIT_NORM_LOSSES = (FaceNet, InBatchHard, HardNet, Percentile)
"""Losses that are defined for unit descriptors."""


class TrialConfig(FrozenConfig):
    """Everything that decides what a trial computes; the defaults are the coursework's baseline."""

    input: Input = Noisy()
    descriptor: AnyDescriptor = L2Net()
    loss: Loss = Triplet()
    sampler: Sampling = RandomTriplets()
    optimiser: Optimizer = SGD()
    schedule: Schedule = Constant()
    """How the optimizer's rate changes over the budget."""
    augmentation: Augmentation = Augmentation()
    warm_start: WarmStart | None = None
    """Weights to begin with; none means random ones."""
    patches: int = Field(default=100_000, ge=1)
    """Budget in patches seen by the descriptor."""
    evaluate_on: Literal["noisy", "clean"] = "noisy"
    """Raw patches that the pipeline is scored on; keep it fixed within one search."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _loss_reads_batches(self) -> "TrialConfig":
        accepted = SAMPLERS_OF_LOSS[type(self.loss)]
        if not isinstance(self.sampler, accepted):
            names = " or ".join(kind.__name__ for kind in accepted)
            raise ValueError(
                f"loss {self.loss.kind!r} needs a sampler of type {names}, "
                f"got {self.sampler.kind!r}"
            )
        return self

    @model_validator(mode="after")
    def _loss_has_the_descriptors_it_is_defined_for(self) -> "TrialConfig":
        if isinstance(self.loss, UNIT_NORM_LOSSES) and not self.descriptor.unit_norm:
            raise ValueError(
                f"loss {self.loss.kind!r} is defined for unit descriptors; "
                "set the descriptor's unit_norm to true"
            )
        return self
