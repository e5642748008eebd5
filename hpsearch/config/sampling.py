"""Settings of batch samplers and batch schedules."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig
from hpsearch.config.custom import Custom
from hpsearch.config.optimizers import Share
from hpsearch.patch_views import VIEWS


def check_milestones(stages: int, milestones: tuple[float, ...]) -> None:
    """Check the shares of the budget at which the stages of a schedule begin.

    Raises:
        ValueError: if there is not one for each stage but the first, in rising order.
    """
    if len(milestones) != stages - 1:
        raise ValueError(
            f"{stages} stages need {stages - 1} shares of the budget at which the later ones "
            f"begin, got {len(milestones)}"
        )
    if any(later <= earlier for earlier, later in pairwise(milestones)):
        raise ValueError(f"the shares must rise, got {milestones}")


class RandomTriplets(FrozenConfig):
    """Random triplets: anchor and positive are views of one point, the negative of another.

    ``tough_until=1`` is R2's tough positive, ``far_from=0`` its far negative, and 0.2 with 0.9 its
    curriculum (10 epochs tough, 35 regular, 5 far).
    """

    kind: Literal["random_triplets"] = "random_triplets"
    batch: int = Field(default=50, ge=1, le=8192)
    """Triplets per batch; three patches each."""
    tough_until: float = Field(default=0.0, ge=0, le=1)
    """Share of the budget, in patches seen, during which positives are tough views (t1..t5)."""
    far_from: float = Field(default=1.0, ge=0, le=1)
    """Share of the budget after which negatives are of another sequence."""

    @property
    def patches(self) -> int:
        """Patches per batch."""
        return 3 * self.batch


class Pairs(FrozenConfig):
    """Pairs of distinct views, one of each of n distinct points."""

    kind: Literal["pairs"] = "pairs"
    batch: int = Field(default=128, ge=2, le=4096)
    """Pairs per batch; two patches each."""

    @property
    def patches(self) -> int:
        """Patches per batch."""
        return 2 * self.batch


class PKSampler(FrozenConfig):
    """P×K sampler: S distinct points, K distinct views of each (Hermans et al. 2017).

    Example:
        >>> PKSampler(groups=32, views=4).patches
        128
    """

    kind: Literal["sxk"] = "sxk"
    groups: int = Field(default=32, ge=2, le=2048)
    """S, number of points in a batch."""
    views: int = Field(default=4, ge=2, le=VIEWS)
    """K, number of views of each point."""

    @property
    def patches(self) -> int:
        """Patches per batch."""
        return self.groups * self.views

    @model_validator(mode="after")
    def _fits(self) -> "PKSampler":
        if self.patches > 4096:
            raise ValueError(f"S·K must be at most 4096 patches, got {self.patches}")
        return self


class Stepped(FrozenConfig):
    """P×K batches that grow while the loss is low, and shrink again when it is high (R3).

    A stage advances when the smoothed loss is below the collapse value by ``below``; with
    ``advance_on="next_batch"`` the loss of one batch of the following stage must be as low too,
    which costs a forward pass a window. If the loss is above the collapse value instead, training
    falls back to the stage before; if that happens in the first window of a stage, its initial
    weights are restored, so that a collapse is undone.

    Example:
        >>> stages = (PKSampler(groups=32, views=2), PKSampler(groups=64, views=4))
        >>> Stepped(stages=stages).patches
        256
    """

    later_fields: ClassVar[frozenset[str]] = frozenset({"advance_on"})

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
    """Window of the mean loss, in patches seen."""
    retry_after: int | None = Field(default=None, ge=1)
    """Patches seen until a failed stage is tried again; None means never."""
    advance_on: Literal["this_batch", "next_batch"] = "this_batch"
    """Batch whose loss must be low. Batches of later stages are harder: a third view can lift the
    loss from 0.57 to 0.94 of its collapse value, so the present loss is a poor guide to the
    next (LOG.md, 2026-11-27)."""

    @property
    def patches(self) -> int:
        """Patches in the largest batch of the schedule."""
        return max(stage.patches for stage in self.stages)


class FixedSteps(FrozenConfig):
    """P×K batches that change at fixed shares of the budget, independent of the loss.

    Example:
        >>> FixedSteps().patches
        256
    """

    former_names: ClassVar[Mapping[str, str]] = {"milestones": "at"}

    kind: Literal["fixed_steps"] = "fixed_steps"
    stages: tuple[PKSampler, ...] = Field(
        default=(PKSampler(groups=32, views=2), PKSampler(groups=64, views=4)), min_length=1
    )
    milestones: tuple[Share, ...] = (0.5,)
    """Share of the budget at which each stage but the first begins, in rising order."""

    @property
    def patches(self) -> int:
        """Patches in the largest batch of the schedule."""
        return max(stage.patches for stage in self.stages)

    @model_validator(mode="after")
    def _one_start_a_stage(self) -> "FixedSteps":
        check_milestones(len(self.stages), self.milestones)
        return self


class MinedTriplets(FrozenConfig):
    """Triplets from offline hard mining (R3).

    Random triplets are drawn and described, and those with the largest d(a,p) − d(a,n) are used
    until the next mining. Mining does not train, so its patches do not count as seen.
    """

    kind: Literal["mined_triplets"] = "mined_triplets"
    batch: int = Field(default=50, ge=1, le=8192)
    """Triplets per batch; three patches each."""
    candidates: int = Field(default=20_000, ge=1, le=10_000_000)
    """Number of random triplets that are described in a mining."""
    keep: float = Field(default=0.25, gt=0, le=1)
    """Share of the candidates that is kept, hardest first."""
    start: Share = 0.25
    """Share of the budget at the first mining; random triplets before."""
    every: int | None = Field(default=None, ge=1)
    """Patches seen between two minings; None means a single mining."""

    @property
    def patches(self) -> int:
        """Patches per batch."""
        return 3 * self.batch


Sampler = Annotated[RandomTriplets | Pairs | PKSampler, Field(discriminator="kind")]
"""Sampler of batches of constant composition, for which a loss is defined."""


class CustomSampler(Custom):
    """The user's own sampler: (sequence_of, first_rows, rng, progress) to the rows of a batch.

    ``sequence_of`` is the sequence of each point, ``first_rows`` the row of each point's first
    patch and then the number of rows, ``rng`` a NumPy generator for this step, and ``progress`` the
    spent share of the budget. The rows have the shape of a batch of ``form``.

    Example:
        >>> CustomSampler(object="my_batches:Near", form=Pairs(batch=256)).patches
        512
    """

    form: Sampler = Pairs()
    """Built-in sampler whose batches have the same form, by which a loss reads them: rows (3, n)
    for ``RandomTriplets``, (2, n) for ``Pairs``, (1, P·K), point by point, for ``PKSampler``."""

    @property
    def patches(self) -> int:
        """Patches per batch."""
        return self.form.patches


Sampling = Annotated[
    RandomTriplets | Pairs | PKSampler | Stepped | FixedSteps | MinedTriplets | CustomSampler,
    Field(discriminator="kind"),
]
"""Batches of a trial: a sampler, a batch schedule, or mined triplets."""


def builtin_form(sampler: Sampler | CustomSampler) -> Sampler:
    """Built-in sampler whose batches have the form of this one's, by which losses read them."""
    return sampler.form if isinstance(sampler, CustomSampler) else sampler


def sampling_stages(sampling: Sampling) -> tuple[Sampler, ...]:
    """Samplers of all stages of a batch schedule, or the only one; built-in ones by their form."""
    match sampling:
        case CustomSampler(form=form):
            return (form,)
        case Stepped(stages=stages) | FixedSteps(stages=stages):
            return stages
        case MinedTriplets(batch=batch):
            return (RandomTriplets(batch=batch),)
        case _:
            return (sampling,)
