"""Losses that change during training, and the collapse value of any loss."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig
from hpsearch.config.losses import AnyLoss, InfoNCE, Library, SingleLoss, SmoothAP
from hpsearch.config.optimizers import Share
from hpsearch.config.sampling import PKSampler, Sampler, check_milestones


class FixedLossSteps(FrozenConfig):
    """Losses that change at fixed shares of the budget, such as from easy to hard negatives.

    Example:
        >>> from hpsearch.config import Percentile
        >>> easy_first = [Percentile(quantile=q) for q in (30, 10, 3, 0)]
        >>> FixedLossSteps(stages=easy_first).starts
        (0.25, 0.5, 0.75)
    """

    kind: Literal["fixed_loss_steps"] = "fixed_loss_steps"
    stages: tuple[SingleLoss, ...] = Field(min_length=1)
    milestones: tuple[Share, ...] | None = None
    """Share of the budget at which each stage but the first begins; None means equal stages."""

    @property
    def starts(self) -> tuple[float, ...]:
        """Share of the budget at which each stage but the first begins."""
        n = len(self.stages)
        return tuple(k / n for k in range(1, n)) if self.milestones is None else self.milestones

    @model_validator(mode="after")
    def _one_start_a_stage(self) -> "FixedLossSteps":
        check_milestones(len(self.stages), self.starts)
        return self


class SteppedLoss(FrozenConfig):
    """Losses that become harder while the loss is low, and easier again when it is high.

    The rule is that of ``Stepped`` for batch sizes, by the collapse value of each stage's loss.

    Example:
        >>> from hpsearch.config import Percentile
        >>> SteppedLoss(stages=[Percentile(quantile=q) for q in (30, 10, 3, 0)]).below
        0.1
    """

    kind: Literal["stepped_loss"] = "stepped_loss"
    stages: tuple[SingleLoss, ...] = Field(min_length=1)
    below: float = Field(default=0.1, gt=0, lt=1)
    """Share of the collapse value by which the smoothed loss must be lower."""
    window: int = Field(default=4096, ge=1)
    """Window of the mean loss, in patches seen."""
    retry_after: int | None = Field(default=None, ge=1)
    """Patches seen until a failed stage is tried again; None means never."""


Loss = Annotated[AnyLoss | FixedLossSteps | SteppedLoss, Field(discriminator="kind")]


def loss_stages(loss: Loss) -> tuple[SingleLoss, ...]:
    """Losses of a schedule, or the one loss of a constant training."""
    return loss.stages if isinstance(loss, FixedLossSteps | SteppedLoss) else (loss,)


def collapse_value_of(loss: SingleLoss, sampler: Sampler) -> float | None:
    """Loss of an encoder that maps every patch to one point, in batches of ``sampler``.

    None for ``Library`` and for the user's own loss without one: ``hpsearch.losses.collapse_value``
    evaluates it on a constant batch.
    """
    match loss:
        case Library():
            return None
        case InfoNCE():
            return loss.collapse_value_of(sampler.patches // 2)
        case SmoothAP():
            views = sampler.views if isinstance(sampler, PKSampler) else 2
            return loss.collapse_value_of(sampler.patches, views)
        case _:
            return loss.collapse_value
