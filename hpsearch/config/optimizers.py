"""Optimizers, learning-rate schedules, and how a network computes."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig


class SGD(FrozenConfig):
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


class Adam(FrozenConfig):
    """Adam (Kingma & Ba 2015) with torch's betas."""

    kind: Literal["adam"] = "adam"
    lr: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1)


class AdamW(FrozenConfig):
    """Adam with a weight decay that its step sizes do not scale (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)


Optimizer = Annotated[SGD | Adam | AdamW, Field(discriminator="kind")]


Share = Annotated[float, Field(ge=0, le=1)]
"""Share of the budget, in patches seen."""

Warmup = Annotated[float, Field(ge=0, le=0.5)]
"""Share of the budget in which the rate rises from 0 in a straight line."""


class Constant(FrozenConfig):
    """The optimizer's rate throughout."""

    kind: Literal["constant"] = "constant"
    warm_up: Warmup = 0.0


class StepDecay(FrozenConfig):
    """The rate is multiplied by a factor at each of some shares of the budget."""

    kind: Literal["step"] = "step"
    at: tuple[Share, ...] = Field(default=(0.5, 0.75), min_length=1)
    """Shares of the budget, in rising order."""
    factor: float = Field(default=0.1, gt=0, lt=1)
    warm_up: Warmup = 0.0

    @model_validator(mode="after")
    def _rising(self) -> "StepDecay":
        if any(later <= earlier for earlier, later in pairwise(self.at)):
            raise ValueError(f"the shares must rise, got {self.at}")
        return self


class Cosine(FrozenConfig):
    """Half a cosine from the rate down to a share of it (Loshchilov & Hutter 2017, no restart)."""

    kind: Literal["cosine"] = "cosine"
    final: Share = 0.0
    """Share of the rate that is left at the end of the budget."""
    warm_up: Warmup = 0.0


class Exponential(FrozenConfig):
    """The same factor for every equal share of the budget."""

    kind: Literal["exponential"] = "exponential"
    final: float = Field(default=0.01, gt=0, le=1)
    """Share of the rate that is left at the end of the budget."""
    warm_up: Warmup = 0.0


Schedule = Annotated[Constant | StepDecay | Cosine | Exponential, Field(discriminator="kind")]


Device = Literal["auto", "cpu", "cuda", "xla"]
"""``auto`` is CUDA where the machine has it, else the CPU."""

Precision = Literal["auto", "float32", "bfloat16"]
"""What convolutions of a descriptor in training compute in; ``auto`` is bfloat16 on accelerators.

Weights, losses, denoisers and all that is scored stay in float32: 8 bits of mantissa are coarser
than a gray level. On a CPU without bfloat16 units bfloat16 is many times slower.
"""


class ComputeConfig(FrozenConfig):
    """Where and in which numbers networks compute; the same for all trials of a search."""

    device: Device = "auto"
    """Found anew on every machine that runs a trial."""
    precision: Precision = "auto"
    compiled: bool = False
    """Compile the descriptor's training (``torch.compile``): tens of seconds for the first trial on
    a machine, fewer for the next, which find what was compiled in ``TORCHINDUCTOR_CACHE_DIR`` (by
    default a folder in the machine's temporary one). So it is for long budgets."""
    graphed: bool | Literal["auto"] = "auto"
    """Run a training step as one CUDA graph; ``auto`` does so on CUDA. Convolutions then take the
    algorithm that is fastest there; with ``deterministic`` no number changes."""
    deterministic: bool = False
    """Refuse operations whose result varies from run to run on one machine."""


DEFAULT_COMPUTE = ComputeConfig()
"""What suits the machine."""
