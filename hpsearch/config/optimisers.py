"""How weights move."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import Setting


class SGD(Setting):
    """Stochastic gradient descent; the defaults are the coursework's descriptor baseline."""

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0, le=100)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Adam(Setting):
    """Adam (Kingma & Ba 2015) with torch's betas."""

    kind: Literal["adam"] = "adam"
    lr: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1)


class AdamW(Setting):
    """Adam with a weight decay that its step sizes do not scale (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)


Optimiser = Annotated[SGD | Adam | AdamW, Field(discriminator="kind")]
