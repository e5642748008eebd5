"""Which patches make a batch."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig
from hpsearch.config.optimizers import Share
from hpsearch.patch_views import VIEWS


class RandomTriplets(FrozenConfig):
    """Anchor and positive are two views of one point, the negative any view of another.

    ``tough_until=1`` is R2's tough positive, ``far_from=0`` its far negative, and 0.2 with 0.9 its
    curriculum (10 epochs tough, 35 regular, 5 far).
    """

    kind: Literal["random_triplets"] = "random_triplets"
    batch: int = Field(default=50, ge=1, le=8192)
    """Triplets a batch; a batch is three times as many patches."""
    tough_until: float = Field(default=0.0, ge=0, le=1)
    """Share of the budget, in patches seen, during which positives are tough views (t1..t5)."""
    far_from: float = Field(default=1.0, ge=0, le=1)
    """Share of the budget from which on negatives are of another sequence."""

    @property
    def patches(self) -> int:
        """Patches a batch."""
        return 3 * self.batch


class Pairs(FrozenConfig):
    """Two distinct views of each of n distinct points."""

    kind: Literal["pairs"] = "pairs"
    batch: int = Field(default=128, ge=2, le=4096)
    """Pairs a batch; a batch is twice as many patches."""

    @property
    def patches(self) -> int:
        """Patches a batch."""
        return 2 * self.batch


class PKSampler(FrozenConfig):
    """S distinct points, K distinct views of each."""

    kind: Literal["sxk"] = "sxk"
    groups: int = Field(default=32, ge=2, le=2048)
    """S, points a batch."""
    views: int = Field(default=4, ge=2, le=VIEWS)
    """K, views of each point."""

    @property
    def patches(self) -> int:
        """Patches a batch."""
        return self.groups * self.views

    @model_validator(mode="after")
    def _fits(self) -> "PKSampler":
        if self.patches > 4096:
            raise ValueError(f"S·K must be at most 4096 patches, got {self.patches}")
        return self


class Stepped(FrozenConfig):
    """S×K batches that grow while training goes well, and shrink again when it does not (R3).

    A stage is left for the next when the smoothed loss lies below the collapse value by
    ``below``. If a stage's smoothed loss is above the collapse value instead, training falls back
    to the stage before: to the weights it came with if that shows in the stage's first window, so
    that a collapse is undone.
    """

    kind: Literal["stepped"] = "stepped"
    stages: tuple[PKSampler, ...] = Field(
        default=(
            PKSampler(groups=32, views=2),
            PKSampler(groups=64, views=2),
            PKSampler(groups=64, views=4),
            PKSampler(groups=128, views=4),
        ),
        min_length=1,
    )
    below: float = Field(default=0.1, gt=0, lt=1)
    """Share of the collapse value by which the smoothed loss must be lower."""
    window: int = Field(default=4096, ge=1)
    """Patches seen over which the loss is averaged."""
    retry_after: int | None = Field(default=None, ge=1)
    """Patches seen before a stage that failed is tried again; none means never."""

    @property
    def patches(self) -> int:
        """Patches in the largest batch."""
        return max(stage.patches for stage in self.stages)


class FixedSteps(FrozenConfig):
    """S×K batches that change at set shares of the budget, whatever the loss does."""

    former_names: ClassVar[Mapping[str, str]] = {"milestones": "at"}

    kind: Literal["fixed_steps"] = "fixed_steps"
    stages: tuple[PKSampler, ...] = Field(
        default=(PKSampler(groups=32, views=2), PKSampler(groups=64, views=4)), min_length=1
    )
    milestones: tuple[Share, ...] = (0.5,)
    """Share of the budget at which each stage but the first begins, in rising order."""

    @property
    def patches(self) -> int:
        """Patches in the largest batch."""
        return max(stage.patches for stage in self.stages)

    @model_validator(mode="after")
    def _one_start_a_stage(self) -> "FixedSteps":
        if len(self.milestones) != len(self.stages) - 1:
            raise ValueError(
                f"{len(self.stages)} stages need {len(self.stages) - 1} shares of the budget at "
                f"which the later ones begin, got {len(self.milestones)}"
            )
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise ValueError(f"the shares must rise, got {self.milestones}")
        return self


class MinedTriplets(FrozenConfig):
    """Offline hard mining: triplets that the descriptor itself found hard (R3).

    Random triplets are drawn and described, and those with the largest d(a,p) − d(a,n) are
    trained on until the next mining. Mining trains nothing, so its patches do not count as seen.
    """

    kind: Literal["mined_triplets"] = "mined_triplets"
    batch: int = Field(default=50, ge=1, le=8192)
    """Triplets a batch; a batch is three times as many patches."""
    candidates: int = Field(default=20_000, ge=1, le=10_000_000)
    """Random triplets that are described at a mining."""
    keep: float = Field(default=0.25, gt=0, le=1)
    """Share of the candidates that is kept, the hardest."""
    start: Share = 0.25
    """Share of the budget after which triplets are mined first; random ones before."""
    every: int | None = Field(default=None, ge=1)
    """Patches seen between two minings; none means once."""

    @property
    def patches(self) -> int:
        """Patches a batch."""
        return 3 * self.batch


Sampler = Annotated[RandomTriplets | Pairs | PKSampler, Field(discriminator="kind")]
"""Batches that are all alike: what a batch is drawn with and what a loss reads."""

Sampling = Annotated[
    RandomTriplets | Pairs | PKSampler | Stepped | FixedSteps | MinedTriplets,
    Field(discriminator="kind"),
]
"""Where a trial's batches come from."""
