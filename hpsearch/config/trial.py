"""Configuration of one trial."""

from collections.abc import Mapping
from typing import ClassVar, Literal

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
    """Warm start from a descriptor trained on random triplets first, as in R3 for batch hard.

    The weights depend only on these settings, the shape of the descriptor, its input and the
    patches, so that trials share them. The budget of the trial is not affected.
    """

    former_names: ClassVar[Mapping[str, str]] = {"optimizer": "optimiser"}

    patches: int = Field(default=20_000, ge=1)
    """Budget of the training of the warm start, in patches seen."""
    loss: Triplet = Triplet(distance="euclidean", margin=HardMargin())
    sampler: RandomTriplets = RandomTriplets()
    optimizer: Optimizer = SGD()
    seed: int = Field(default=0, ge=0)


class Augmentation(FrozenConfig):
    """Augmentation of training patches; disabled by default.

    Example:
        >>> Augmentation() == TrialConfig().augmentation
        True
    """

    later_fields: ClassVar[frozenset[str]] = frozenset({"rotation", "scale", "anisotropy", "shift"})

    turns: Literal["none", "patch", "point"] = "none"
    """Flips and 90° rotations, independent for each patch or equal for all patches of a point.

    In R3, independent ones nearly doubled the loss; equal ones were proposed and not tried.
    """
    crop: float = Field(default=0.0, ge=0, le=0.5)
    """Maximum share of the side that is cropped before the rest is scaled up again."""
    brightness: float = Field(default=0.0, ge=0, le=128)
    """Maximum shift of brightness, in gray levels."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Maximum |log| of the factor on the deviation from the patch's mean."""
    rotation: float = Field(default=0.0, ge=0, le=45)
    """Standard deviation of a rotation of each patch, in degrees.

    Rotation, scale, anisotropy and shift imitate the errors of a keypoint detector.
    """
    scale: float = Field(default=0.0, ge=0, le=0.5)
    """Standard deviation of the log of a scale factor of each patch."""
    anisotropy: float = Field(default=0.0, ge=0, le=0.5)
    """Standard deviation of the log of a stretch of each patch along a random axis."""
    shift: float = Field(default=0.0, ge=0, le=0.5)
    """Standard deviation of a shift of each patch in x and in y, in half-sides of the patch."""

    @property
    def is_affine(self) -> bool:
        """True if patches are rotated, scaled, stretched or shifted by small random amounts."""
        return bool(self.rotation or self.scale or self.anisotropy or self.shift)


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
"""Samplers by loss for whose batches the loss is defined."""

UNIT_NORM_LOSSES = (FaceNet, InBatchHard, HardNet, Percentile)
"""Losses that are defined for unit descriptors."""


class TrialConfig(FrozenConfig):
    """Complete configuration of a trial; defaults of the coursework's baseline.

    Example:
        >>> config = TrialConfig(patches=20_000, seed=1)
        >>> TrialConfig.model_validate_json(config.model_dump_json()) == config
        True
    """

    former_names: ClassVar[Mapping[str, str]] = {"optimizer": "optimiser"}

    input: Input = Noisy()
    descriptor: AnyDescriptor = L2Net()
    loss: Loss = Triplet()
    sampler: Sampling = RandomTriplets()
    optimizer: Optimizer = SGD()
    schedule: Schedule = Constant()
    """Learning-rate schedule over the budget."""
    augmentation: Augmentation = Augmentation()
    warm_start: WarmStart | None = None
    """Initial weights from another training; None means random weights."""
    patches: int = Field(default=100_000, ge=1)
    """Budget, in patches seen by the descriptor."""
    evaluate_on: Literal["noisy", "clean"] = "noisy"
    """Raw patches for the evaluation of the pipeline; keep it fixed within a search."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _loss_reads_batches(self) -> "TrialConfig":
        accepted = SAMPLERS_OF_LOSS[type(self.loss)]
        if not isinstance(self.sampler, accepted):
            names = " or ".join(kind.__name__ for kind in accepted)
            raise ValueError(
                f"loss {self.loss.kind!r} requires a sampler of type {names}, "
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
