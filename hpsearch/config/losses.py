"""What a batch of descriptors pays."""

import math
from typing import Annotated, Literal

from pydantic import Field

from hpsearch.config.base import Setting

Distance = Literal["euclidean", "squared", "mean_squared"]
"""d, d², or d² divided by the number of dimensions (the coursework's baseline)."""


class HardMargin(Setting):
    """The hinge [α + z]₊."""

    kind: Literal["hard"] = "hard"
    alpha: float = Field(1.0, gt=0, le=10)
    """Margin, in units of the distance."""

    @property
    def collapse_value(self) -> float:
        """What z = 0 pays."""
        return self.alpha


class SoftMargin(Setting):
    """The soft hinge ln(1 + exp(z + α)) (Hermans et al. 2017)."""

    kind: Literal["soft"] = "soft"
    alpha: float = Field(0.0, ge=0, le=10)
    """Margin, in units of the distance."""

    @property
    def collapse_value(self) -> float:
        """What z = 0 pays."""
        return math.log1p(math.exp(self.alpha))


Margin = Annotated[HardMargin | SoftMargin, Field(discriminator="kind")]


class Triplet(Setting):
    """Random triplets pay m(d(a,p) − d(a,n)); the defaults are the coursework's baseline."""

    kind: Literal["triplet"] = "triplet"
    distance: Distance = "mean_squared"
    margin: Margin = HardMargin()

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


class BatchHard(Setting):
    """Every anchor of an S×K batch pays m(max d(a,p) − min d(a,n)) (Hermans et al. 2017)."""

    kind: Literal["batch_hard"] = "batch_hard"
    distance: Distance = "euclidean"
    margin: Margin = HardMargin()

    @property
    def collapse_value(self) -> float:
        """The loss of an encoder that maps every patch to one point."""
        return self.margin.collapse_value


Loss = Annotated[Triplet | BatchHard, Field(discriminator="kind")]
