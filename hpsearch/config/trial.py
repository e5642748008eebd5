"""Configuration of one trial."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig
from hpsearch.config.custom import CustomAugmentation, CustomLoss, CustomMetric
from hpsearch.config.loss_schedules import Loss, SteppedLoss, collapse_value_of, loss_stages
from hpsearch.config.losses import (
    AngularModulation,
    AnyLoss,
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
    SmoothAP,
    Triplet,
)
from hpsearch.config.networks import AnyDescriptor, Compression, Input, L2Net, Noisy
from hpsearch.config.optimizers import EMA, SGD, Constant, Optimizer, Schedule
from hpsearch.config.regularizers import SOSR, Distillation, NormDifference, Regularizer
from hpsearch.config.sampling import (
    CustomSampler,
    FixedSteps,
    MinedTriplets,
    Pairs,
    PKSampler,
    RandomTriplets,
    Sampling,
    Stepped,
    sampling_stages,
)
from hpsearch.config.triplets import DistanceWeightedMiner, HardMargin


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

    later_fields: ClassVar[frozenset[str]] = frozenset(
        {"rotation", "scale", "anisotropy", "shift", "shear", "custom"}
    )

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

    Rotation, scale, anisotropy, shift and shear imitate the errors of a keypoint detector.
    """
    scale: float = Field(default=0.0, ge=0, le=0.5)
    """Standard deviation of the log of a scale factor of each patch."""
    anisotropy: float = Field(default=0.0, ge=0, le=0.5)
    """Standard deviation of the log of a stretch of each patch along a random axis."""
    shift: float = Field(default=0.0, ge=0, le=0.5)
    """Standard deviation of a shift of each patch in x and in y, in half-sides of the patch."""
    shear: float = Field(default=0.0, ge=0, le=0.5)
    """Standard deviation of a shear of each patch, x by y, after a rotation by a random angle."""
    custom: CustomAugmentation | None = None
    """The user's own augmentation, applied last."""

    @property
    def is_affine(self) -> bool:
        """True if patches are deformed or shifted by small random amounts."""
        return any((self.rotation, self.scale, self.anisotropy, self.shift, self.shear))


TRIPLET_SAMPLERS, GROUP_SAMPLERS = (RandomTriplets, MinedTriplets), (PKSampler, Stepped, FixedSteps)

SAMPLERS_OF_LOSS: dict[type, tuple[type, ...]] = {
    Triplet: TRIPLET_SAMPLERS,
    FaceNet: TRIPLET_SAMPLERS,
    BatchAll: GROUP_SAMPLERS,
    BatchHard: GROUP_SAMPLERS,
    BatchTriplet: GROUP_SAMPLERS,
    InBatchHard: (Pairs,),
    HardNet: (Pairs,),
    Percentile: (Pairs,),
    Contrastive: (*TRIPLET_SAMPLERS, Pairs),
    HybridSimilarity: (Pairs,),
    DynamicSoftMargin: (Pairs,),
    AngularModulation: (Pairs,),
    InfoNCE: (Pairs,),
    SmoothAP: (Pairs, *GROUP_SAMPLERS),
    Library: (Pairs, *GROUP_SAMPLERS),
    CustomLoss: (*TRIPLET_SAMPLERS, Pairs, *GROUP_SAMPLERS),
}
"""Samplers by loss for whose batches the loss is defined."""

UNIT_NORM_LOSSES = (
    *(FaceNet, InBatchHard, HardNet, Percentile, HybridSimilarity, DynamicSoftMargin),
    *(AngularModulation, InfoNCE, SmoothAP),
)
"""Losses that are defined for unit descriptors."""


def requires_unit_norm(loss: AnyLoss) -> bool:
    """True if a loss, or its miner, is defined for unit descriptors."""
    mined = isinstance(loss, BatchTriplet) and isinstance(loss.miner, DistanceWeightedMiner)
    return mined or isinstance(loss, UNIT_NORM_LOSSES)


class TrialConfig(FrozenConfig):
    """Complete configuration of a trial; defaults of the coursework's baseline.

    Example:
        >>> config = TrialConfig(patches=20_000, seed=1)
        >>> TrialConfig.model_validate_json(config.model_dump_json()) == config
        True
    """

    former_names: ClassVar[Mapping[str, str]] = {"optimizer": "optimiser"}
    later_fields: ClassVar[frozenset[str]] = frozenset(
        {"compression", "regularizers", "distillation", "gradient_clip", "ema", "metrics"}
    )

    input: Input = Noisy()
    descriptor: AnyDescriptor = L2Net()
    compression: Compression | None = None
    """Compression of the trained descriptor; None leaves it as it is."""
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
    regularizers: tuple[Regularizer, ...] = ()
    """Terms that are added to the loss."""
    distillation: Distillation | None = None
    """Term by which the descriptor imitates a trained model."""
    gradient_clip: float | None = Field(default=None, gt=0, le=1e6)
    """Largest Euclidean norm of the gradient of all weights; a longer one is scaled down."""
    ema: EMA | None = None
    """Averaged weights, which are scored and registered instead of the latest ones."""
    metrics: tuple[CustomMetric, ...] = ()
    """The user's own metrics of validation descriptors, reported with the others."""

    @property
    def collapse_value(self) -> float | None:
        """Loss of an encoder that maps every patch to one point.

        None if it changes with the stage of a schedule, or is computed from a batch, as of
        ``Library``.
        """
        found = {
            collapse_value_of(loss, sampler)
            for loss in loss_stages(self.loss)
            for sampler in sampling_stages(self.sampler)
        }
        value = found.pop()
        if found or value is None:
            return None
        return value + self.regularizer_collapse_value

    @property
    def regularizer_collapse_value(self) -> float:
        """Sum of the regularizers if all descriptors are equal."""
        dim = self.descriptor.descriptor_dim
        return sum(term.collapse_value(dim) for term in self.regularizers)

    @property
    def _form(self) -> Sampling:
        """Sampler or schedule, by which batches have their form."""
        given = self.sampler
        return given.form if isinstance(given, CustomSampler) else given

    @model_validator(mode="after")
    def _loss_reads_batches(self) -> "TrialConfig":
        for loss in loss_stages(self.loss):
            accepted = SAMPLERS_OF_LOSS[type(loss)]
            if not isinstance(self._form, accepted):
                names = " or ".join(kind.__name__ for kind in accepted)
                raise ValueError(
                    f"loss {loss.kind!r} requires a sampler of type {names}, "
                    f"got {self.sampler.kind!r}"
                )
        if isinstance(self.loss, SteppedLoss) and isinstance(self.sampler, Stepped):
            raise ValueError(
                "loss and batches cannot both follow the loss; use fixed steps for one of them"
            )
        return self

    @model_validator(mode="after")
    def _loss_has_the_descriptors_it_is_defined_for(self) -> "TrialConfig":
        for loss in loss_stages(self.loss):
            if requires_unit_norm(loss) and not self.descriptor.unit_norm:
                raise ValueError(
                    f"loss {loss.kind!r} is defined for unit descriptors; "
                    "set the descriptor's unit_norm to true"
                )
        return self

    @model_validator(mode="after")
    def _regularizers_read_batches(self) -> "TrialConfig":
        for term in self.regularizers:
            if isinstance(term, SOSR | NormDifference) and not isinstance(self._form, Pairs):
                raise ValueError(
                    f"regularizer {term.kind!r} requires a sampler of type Pairs, "
                    f"got {self.sampler.kind!r}"
                )
        return self
