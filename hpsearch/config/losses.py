"""What a batch of descriptors pays."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig

Distance = Literal["euclidean", "squared", "mean_squared"]
"""d, d², or d² divided by the number of dimensions (the coursework's baseline)."""

Restoration = Literal["mae", "mse"]
"""What a denoiser pays: mean absolute error or mean squared error, in gray levels."""


class HardMargin(FrozenConfig):
    """The hinge [α + z]₊."""

    kind: Literal["hard"] = "hard"
    alpha: float = Field(default=1.0, ge=1e-4, le=10)
    """Margin, in units of the distance."""

    @property
    def collapse_value(self) -> float:
        """What z = 0 pays."""
        return self.alpha


class SoftMargin(FrozenConfig):
    """The soft hinge ln(1 + exp(z + α)) (Hermans et al. 2017)."""

    kind: Literal["soft"] = "soft"
    alpha: float = Field(default=0.0, ge=0, le=10)
    """Margin, in units of the distance."""

    @property
    def collapse_value(self) -> float:
        """What z = 0 pays."""
        return math.log1p(math.exp(self.alpha))


Margin = Annotated[HardMargin | SoftMargin, Field(discriminator="kind")]


class Triplet(FrozenConfig):
    """Random triplets pay m(d(a,p) − d(a,n)); the defaults are the coursework's baseline."""

    kind: Literal["triplet"] = "triplet"
    distance: Distance = "mean_squared"
    margin: Margin = HardMargin()

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class FaceNet(FrozenConfig):
    """The mean of [d²(a,p) − d²(a,n) + Δ]₊ on unit descriptors (Schroff et al. 2015)."""

    kind: Literal["facenet"] = "facenet"
    margin: HardMargin = HardMargin(alpha=0.2)

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class BatchAll(FrozenConfig):
    """Every valid triplet of an S×K batch pays m(d(a,p) − d(a,n)) (Hermans et al. 2017)."""

    kind: Literal["batch_all"] = "batch_all"
    distance: Distance = "euclidean"
    margin: Margin = HardMargin()
    average: Literal["all", "nonzero"] = "all"
    """Mean over all valid triplets, or over those that pay; the latter need not fall as training
    goes well, because triplets leave the mean."""

    @model_validator(mode="after")
    def _has_zero_loss_triplets(self) -> "BatchAll":
        if self.average == "nonzero" and isinstance(self.margin, SoftMargin):
            raise ValueError(
                "a soft margin makes every triplet pay; use average 'all' or a hard margin"
            )
        return self

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class BatchHard(FrozenConfig):
    """Every anchor of an S×K batch pays m(max d(a,p) − min d(a,n)) (Hermans et al. 2017)."""

    kind: Literal["batch_hard"] = "batch_hard"
    distance: Distance = "euclidean"
    margin: Margin = HardMargin()

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class InBatchHard(FrozenConfig):
    """Pairs pay m(d_ii − (min_{j≠i} d_ij + min_{j≠i} d_ji) / 2) on unit descriptors (R1, eq. 6)."""

    kind: Literal["in_batch_hard"] = "in_batch_hard"
    margin: Margin = HardMargin(alpha=0.01)

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class HardNet(FrozenConfig):
    """Pairs pay m(d_ii − min_{j≠i} min(d_ij, d_ji)) on unit descriptors (Mishchuk et al. 2017).

    Without the published code's mask on distances below 0.008, which makes collapse cost 0.
    """

    kind: Literal["hardnet"] = "hardnet"
    margin: Margin = HardMargin()

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class Percentile(FrozenConfig):
    """As in-batch hard, with the negative at percentile q of its row or column (R1, figure 3).

    q = 0 is ``InBatchHard`` when combined by the mean and ``HardNet`` by the minimum.
    """

    kind: Literal["percentile"] = "percentile"
    q: float = Field(default=2.0, ge=0, le=100)
    """Percent of the negatives that are nearer than the chosen one, rounded down; 0 = hardest."""
    combine: Literal["mean", "min"] = "mean"
    """How the row's and the column's negative become one distance."""
    margin: Margin = HardMargin(alpha=0.01)

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class Contrastive(FrozenConfig):
    """Positive pairs pay ½d², negative pairs ½[Δ − d]₊² (Chopra et al. 2005), weighted.

    Random triplets give a positive and a negative pair an anchor; batches of n pairs give
    n positive and n(n − 1) negative ones.
    """

    kind: Literal["contrastive"] = "contrastive"
    radius: float = Field(default=1.0, ge=1e-3, le=10)
    """Δ: negative pairs farther apart pay nothing."""
    negative_share: float = Field(default=0.5, ge=0.01, le=0.99)
    """Weight of the mean over negative pairs; the mean over positive pairs weighs the rest."""

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.negative_share * self.radius**2 / 2


Loss = Annotated[
    Triplet | FaceNet | BatchAll | BatchHard | InBatchHard | HardNet | Percentile | Contrastive,
    Field(discriminator="kind"),
]
