"""Metric-learning and restoration losses."""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig

Distance = Literal["euclidean", "squared", "mean_squared"]
"""Distance: d, d², or d² divided by the number of dimensions (the coursework's baseline)."""

Restoration = Literal["mae", "mse"]
"""Restoration loss: mean absolute error or mean squared error, in gray levels."""


class HardMargin(FrozenConfig):
    """Hinge [α + z]₊ of the violation z."""

    kind: Literal["hard"] = "hard"
    alpha: float = Field(default=1.0, ge=1e-4, le=10)
    """Margin, in units of the distance."""

    @property
    def collapse_value(self) -> float:
        """Loss at z = 0."""
        return self.alpha


class SoftMargin(FrozenConfig):
    """Soft hinge ln(1 + exp(z + α)) of the violation z (Hermans et al. 2017)."""

    kind: Literal["soft"] = "soft"
    alpha: float = Field(default=0.0, ge=0, le=10)
    """Margin, in units of the distance."""

    @property
    def collapse_value(self) -> float:
        """Loss at z = 0."""
        return math.log1p(math.exp(self.alpha))


Margin = Annotated[HardMargin | SoftMargin, Field(discriminator="kind")]


class Triplet(FrozenConfig):
    """Triplet loss m(d(a,p) − d(a,n)) of random triplets; defaults of the coursework's baseline."""

    kind: Literal["triplet"] = "triplet"
    distance: Distance = "mean_squared"
    margin: Margin = HardMargin()

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class FaceNet(FrozenConfig):
    """FaceNet loss, the mean of [d²(a,p) − d²(a,n) + Δ]₊ on unit descriptors.

    Source: Schroff et al., CVPR 2015.
    """

    kind: Literal["facenet"] = "facenet"
    margin: HardMargin = HardMargin(alpha=0.2)

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class BatchAll(FrozenConfig):
    """Batch-all loss m(d(a,p) − d(a,n)) of all valid triplets of a P×K batch.

    Source: Hermans et al. 2017, arXiv:1703.07737, eq. 6.
    """

    kind: Literal["batch_all"] = "batch_all"
    distance: Distance = "euclidean"
    margin: Margin = HardMargin()
    average: Literal["all", "nonzero"] = "all"
    """Mean over all valid triplets, or over those with nonzero loss; the latter need not decrease
    in successful training, because triplets leave the mean."""

    @model_validator(mode="after")
    def _has_zero_loss_triplets(self) -> "BatchAll":
        if self.average == "nonzero" and isinstance(self.margin, SoftMargin):
            raise ValueError("a soft margin has no zero losses; use average 'all' or a hard margin")
        return self

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class BatchHard(FrozenConfig):
    """Batch-hard loss m(max d(a,p) − min d(a,n)) of every anchor of a P×K batch.

    Source: Hermans et al. 2017, arXiv:1703.07737, eq. 5.

    Example:
        >>> BatchHard(margin=SoftMargin(alpha=0.0)).collapse_value
        0.6931471805599453
    """

    kind: Literal["batch_hard"] = "batch_hard"
    distance: Distance = "euclidean"
    margin: Margin = HardMargin()

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class InBatchHard(FrozenConfig):
    """In-batch hard loss m(d_ii − (min_{j≠i} d_ij + min_{j≠i} d_ji) / 2) of pairs (R1, eq. 6).

    Defined for unit descriptors.
    """

    kind: Literal["in_batch_hard"] = "in_batch_hard"
    margin: Margin = HardMargin(alpha=0.01)

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class HardNet(FrozenConfig):
    """HardNet loss m(d_ii − min_{j≠i} min(d_ij, d_ji)) of pairs (Mishchuk et al. 2017).

    Defined for unit descriptors. Without the published code's mask on distances below 0.008, with
    which a collapsed encoder has loss 0.

    Example:
        >>> HardNet(margin=HardMargin(alpha=1.0)).collapse_value
        1.0
    """

    kind: Literal["hardnet"] = "hardnet"
    margin: Margin = HardMargin()

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class Percentile(FrozenConfig):
    """In-batch loss with the negative at a percentile of its row and column (R1, figure 3).

    Percentile 0 is ``InBatchHard`` when combined by the mean and ``HardNet`` by the minimum.
    """

    former_names: ClassVar[Mapping[str, str]] = {"quantile": "q"}

    kind: Literal["percentile"] = "percentile"
    quantile: float = Field(default=2.0, ge=0, le=100)
    """Percent of the negatives that are nearer than the chosen one, rounded down; 0 = hardest."""
    combine: Literal["mean", "min"] = "mean"
    """Combination of the distances of the row's and the column's negative."""
    margin: Margin = HardMargin(alpha=0.01)

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class Contrastive(FrozenConfig):
    """Contrastive loss: weighted ½d² of positive and ½[Δ − d]₊² of negative pairs (Chopra 2005).

    Random triplets give a positive and a negative pair per anchor; batches of n pairs give n
    positive and n(n − 1) negative ones.
    """

    former_names: ClassVar[Mapping[str, str]] = {"margin": "radius"}

    kind: Literal["contrastive"] = "contrastive"
    margin: float = Field(default=1.0, ge=1e-3, le=10)
    """Margin Δ: negative pairs at a larger distance have loss 0."""
    negative_share: float = Field(default=0.5, ge=0.01, le=0.99)
    """Weight of the mean over negative pairs; the mean over positive pairs has the rest."""

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.negative_share * self.margin**2 / 2


Loss = Annotated[
    Triplet | FaceNet | BatchAll | BatchHard | InBatchHard | HardNet | Percentile | Contrastive,
    Field(discriminator="kind"),
]
