"""Metric-learning and restoration losses."""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig, Params
from hpsearch.config.custom import CustomLoss
from hpsearch.config.triplets import (
    BatchMiner,
    Distance,
    HardMargin,
    Margin,
    SemiHardMiner,
    SoftMargin,
)

Restoration = Literal["mae", "mse"]
"""Restoration loss: mean absolute error or mean squared error, in gray levels."""


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
    which a collapsed encoder has loss 0. ``HardNet(negatives="all", exponent=2)`` is the
    first-order term of SOSNet (Tian et al. 2019).

    Example:
        >>> HardNet(margin=HardMargin(alpha=1.0)).collapse_value
        1.0
    """

    later_fields: ClassVar[frozenset[str]] = frozenset({"negatives", "exponent"})

    kind: Literal["hardnet"] = "hardnet"
    margin: Margin = HardMargin()
    negatives: Literal["between", "all"] = "between"
    """Negatives of a pair: patches of the other call, or other anchors and other positives too."""
    exponent: Literal[1, 2] = 1
    """Exponent of the margin function."""

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value**self.exponent


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


class HybridSimilarity(FrozenConfig):
    """HyNet's triplet loss [m + h(d_ii) − h(d_i−)]₊ of pairs with h(d) = d + α·d²/2.

    d_i− is the distance to the nearest negative: among the other positives and anchors, as seen
    from the anchor and from the positive. Defined for unit descriptors, on which d²/2 is one minus
    the cosine. Without the constant 1/Z of the paper, as in the published code; HyNet's third part
    is the regularizer ``NormDifference``.

    Source: Tian et al., NeurIPS 2020, and yuruntian/HyNet.

    Example:
        >>> HybridSimilarity().collapse_value
        1.2
    """

    kind: Literal["hybrid_similarity"] = "hybrid_similarity"
    alpha: float = Field(default=2.0, ge=0, le=100)
    """Weight of one minus the cosine next to the Euclidean distance."""
    margin: float = Field(default=1.2, gt=0, le=100)

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin


class DynamicSoftMargin(FrozenConfig):
    """Dynamic soft margin: mean of w(z)·z over the violations z of HardNet's triplets.

    w is the cumulative distribution of z, from a moving histogram that is part of the checkpoint:
    there is no margin to choose. Defined for unit descriptors.

    Source: Zhang & Rusinkiewicz, ICCV 2019, and lg-zhang/dynamic-soft-margin-pytorch.
    """

    kind: Literal["dynamic_soft_margin"] = "dynamic_soft_margin"
    bins: int = Field(default=512, ge=2, le=4096)
    """Bins of the histogram over violations from −2 to 2."""
    momentum: float = Field(default=0.01, gt=0, le=1)
    """Weight of one batch in the histogram."""

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point; successful losses are negative."""
        return 0.0


class AngularModulation(FrozenConfig):
    """SDGMNet's loss: mean of α·wₚ·θ_ii − wₙ·θ_i− over pairs, with angles θ between descriptors.

    The weights, of moving statistics that are part of the checkpoint, are high for pairs of usual
    angles and 0 for triplets whose θ_ii − θ_i− is below its ``quantile``; they are constant in the
    first tenth of the budget. Defined for unit descriptors, without the published code's mask on
    near negatives.

    Source: Ma & Deng, AAAI 2024, and ACuOoOoO/SDGMNet at commit 4e9dfa0, which has this loss.
    """

    kind: Literal["angular_modulation"] = "angular_modulation"
    alpha: float = Field(default=0.9, gt=0, le=2)
    """Weight of the angles of positive pairs."""
    quantile: float = Field(default=0.6, gt=0, lt=1)
    """Share of the triplets that are left out as easy, by a normal distribution."""
    momentum: float = Field(default=0.001, gt=0, le=1)
    """Weight of one batch in the statistics."""

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point; successful losses are negative."""
        return 0.0


class InfoNCE(FrozenConfig):
    """InfoNCE: cross-entropy of finding the positive by cosine ÷ τ, both ways (mean of the two).

    Defined for unit descriptors. Source: van den Oord et al. 2018, arXiv:1807.03748.
    """

    kind: Literal["info_nce"] = "info_nce"
    temperature: float = Field(default=0.07, ge=1e-3, le=10)
    """τ, on the cosines."""

    def collapse_value_of(self, pairs: int) -> float:
        """Loss of an encoder that maps every patch to one point, in batches of ``pairs``."""
        return math.log(pairs)


class SmoothAP(FrozenConfig):
    """Smooth-AP: one minus the average precision of retrieval in the batch, with soft ranks.

    Every patch is a query; itself counts as its first positive, as in the published code. Defined
    for unit descriptors. Source: Brown et al., ECCV 2020, and Andrew-Brown1/Smooth_AP.
    """

    kind: Literal["smooth_ap"] = "smooth_ap"
    temperature: float = Field(default=0.01, ge=1e-4, le=10)
    """τ of the sigmoid that replaces the step function, on differences of cosines."""

    def collapse_value_of(self, patches: int, views: int) -> float:
        """Loss of an encoder that maps every patch to one point, in batches of ``patches``."""
        return 1 - (views + 1) / (patches + 1)


class BatchTriplet(FrozenConfig):
    """Triplet loss m(d(a,p) − d(a,n)) of a P×K batch, of triplets that a miner chooses.

    ``BatchHard`` has the hardest ones, which can collapse a network from random weights; a miner of
    easier ones does so less.

    Example:
        >>> BatchTriplet(margin=HardMargin(alpha=0.2)).miner.kind
        'semi_hard'
    """

    kind: Literal["batch_triplet"] = "batch_triplet"
    miner: BatchMiner = SemiHardMiner()
    distance: Distance = "euclidean"
    margin: Margin = HardMargin()

    @property
    def collapse_value(self) -> float:
        """Loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class Library(FrozenConfig):
    """Any loss, and miner, of pytorch-metric-learning for pairs or P×K batches.

    Install it with ``pip install "hpsearch[metric-learning]"``, on workers too. The arguments
    ``distance``, ``reducer`` and ``embedding_regularizer`` are names of classes there. Losses with
    weights of their own, such as those of a classifier, are refused, and so are those whose state
    would be lost by a checkpoint. The collapse value is found from a constant batch.

    Example:
        >>> Library(loss="CircleLoss", params={"m": 0.4, "gamma": 80}).params["m"]
        0.4
    """

    kind: Literal["library"] = "library"
    loss: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Class of ``pytorch_metric_learning.losses``."""
    miner: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Class of ``pytorch_metric_learning.miners``; None means all pairs or triplets."""
    params: Params = Params()
    """Arguments of the loss."""
    miner_params: Params = Params()
    """Arguments of the miner."""

    @model_validator(mode="after")
    def _arguments_have_a_miner(self) -> "Library":
        if self.miner_params and self.miner is None:
            raise ValueError("miner_params need a miner; name one, or leave them out")
        return self


AnyLoss = (
    Triplet | FaceNet | BatchAll | BatchHard | BatchTriplet | InBatchHard | HardNet | Percentile
    | Contrastive | HybridSimilarity | DynamicSoftMargin | AngularModulation | InfoNCE | SmoothAP
    | Library | CustomLoss
)  # fmt: skip
SingleLoss = Annotated[AnyLoss, Field(discriminator="kind")]
"""Loss that does not change during training."""
