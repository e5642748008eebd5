"""Parts of triplet losses: distance between descriptors, margin, and miner of P×K batches."""

import math
from typing import Annotated, Literal

from pydantic import Field

from hpsearch.config.base import FrozenConfig

Distance = Literal["euclidean", "squared", "mean_squared"]
"""Distance: d, d², or d² divided by the number of dimensions (the coursework's baseline)."""


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


class PercentileMiner(FrozenConfig):
    """Positive and negative of each anchor at a percentile of its own, from the hardest.

    Percentile 0 is the farthest positive and the nearest negative, as in ``BatchHard``; 50 are the
    medians. A schedule of losses lowers it during training.
    """

    kind: Literal["percentile"] = "percentile"
    quantile: float = Field(default=20.0, ge=0, le=100)
    """Percent of the positives and of the negatives that are harder than the chosen ones."""


class SemiHardMiner(FrozenConfig):
    """Every positive of each anchor, with the nearest negative that is farther than it.

    If no negative is farther, the farthest one is chosen.

    Source: Schroff et al., CVPR 2015, section 3.2.
    """

    kind: Literal["semi_hard"] = "semi_hard"


class DistanceWeightedMiner(FrozenConfig):
    """Every positive of each anchor, with a negative drawn so that all distances are as likely.

    The probability of a negative at distance d is proportional to 1 / q(d), where q is the
    distribution of distances between random unit descriptors. Defined for unit descriptors.

    Source: Wu et al., ICCV 2017, section 4.
    """

    kind: Literal["distance_weighted"] = "distance_weighted"
    cutoff: float = Field(default=0.5, gt=0, lt=2)
    """Smallest distance in the weights, which would otherwise grow without bound."""
    upper: float = Field(default=1.4, gt=0, le=2)
    """Distance above which negatives are not drawn, unless all of an anchor's are."""


BatchMiner = Annotated[
    PercentileMiner | SemiHardMiner | DistanceWeightedMiner, Field(discriminator="kind")
]
