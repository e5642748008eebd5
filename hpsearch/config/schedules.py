"""How the learning rate changes while the budget is spent: data, without a counter."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import Setting

Share = Annotated[float, Field(ge=0, le=1)]
"""Share of the budget, in patches seen."""

WarmUp = Annotated[float, Field(ge=0, le=0.5)]
"""Share of the budget in which the rate rises from 0 in a straight line."""


class Constant(Setting):
    """The optimiser's rate throughout."""

    kind: Literal["constant"] = "constant"
    warm_up: WarmUp = 0.0


class StepDecay(Setting):
    """The rate is multiplied by a factor at each of some shares of the budget."""

    kind: Literal["step"] = "step"
    at: tuple[Share, ...] = Field(default=(0.5, 0.75), min_length=1)
    """Shares of the budget, in rising order."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    warm_up: WarmUp = 0.0

    @model_validator(mode="after")
    def _rising(self) -> "StepDecay":
        if any(later <= earlier for earlier, later in pairwise(self.at)):
            raise ValueError(f"the shares must rise, got {self.at}")
        return self


class Cosine(Setting):
    """Half a cosine from the rate down to a share of it (Loshchilov & Hutter 2017, no restart)."""

    kind: Literal["cosine"] = "cosine"
    final: Share = 0.0
    """Share of the rate that is left at the end of the budget."""
    warm_up: WarmUp = 0.0


class Exponential(Setting):
    """The same factor for every equal share of the budget."""

    kind: Literal["exponential"] = "exponential"
    final: float = Field(default=0.01, gt=0, le=1)
    """Share of the rate that is left at the end of the budget."""
    warm_up: WarmUp = 0.0


Schedule = Annotated[Constant | StepDecay | Cosine | Exponential, Field(discriminator="kind")]
