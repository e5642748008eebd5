"""Settings of optimizers, learning-rate schedules, and compute."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig


class SGD(FrozenConfig):
    """Stochastic gradient descent; defaults of the coursework's descriptor baseline.

    Example:
        >>> SGD(lr=0.1, momentum=0.9, nesterov=True).lr
        0.1
    """

    later_fields: ClassVar[frozenset[str]] = frozenset({"dampening"})

    kind: Literal["sgd"] = "sgd"
    lr: float = Field(default=0.1, gt=0, le=100)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    dampening: float = Field(default=0.0, ge=0, le=1)
    """Share of each gradient but the first that the momentum leaves out; HardNet uses 0.9."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov requires a momentum above 0")
        if self.nesterov and self.dampening:
            raise ValueError("nesterov requires a dampening of 0")
        return self


class Adam(FrozenConfig):
    """Adam (Kingma & Ba 2015) with torch's default betas.

    Example:
        >>> Adam(lr=1e-3).kind
        'adam'
    """

    kind: Literal["adam"] = "adam"
    lr: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1)


class AdamW(FrozenConfig):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)


Optimizer = Annotated[SGD | Adam | AdamW, Field(discriminator="kind")]


Share = Annotated[float, Field(ge=0, le=1)]
"""Share of the budget, in patches seen."""

Warmup = Annotated[float, Field(ge=0, le=0.5)]
"""Share of the budget in which the learning rate rises linearly from 0."""


class Constant(FrozenConfig):
    """Constant learning rate."""

    former_names: ClassVar[Mapping[str, str]] = {"warmup": "warm_up"}

    kind: Literal["constant"] = "constant"
    warmup: Warmup = 0.0


class StepDecay(FrozenConfig):
    """Step decay: the learning rate is multiplied by a factor at shares of the budget.

    Example:
        >>> StepDecay().kind
        'step'
    """

    former_names: ClassVar[Mapping[str, str]] = {
        "milestones": "at",
        "gamma": "factor",
        "warmup": "warm_up",
    }

    kind: Literal["step"] = "step"
    milestones: tuple[Share, ...] = Field(default=(0.5, 0.75), min_length=1)
    """Shares of the budget, in rising order."""
    gamma: float = Field(default=0.1, gt=0, lt=1)
    warmup: Warmup = 0.0

    @model_validator(mode="after")
    def _rising(self) -> "StepDecay":
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise ValueError(f"the shares must rise, got {self.milestones}")
        return self


class Cosine(FrozenConfig):
    """Cosine decay to a share of the learning rate (Loshchilov & Hutter 2017, no restarts).

    Example:
        >>> Cosine().kind
        'cosine'
    """

    former_names: ClassVar[Mapping[str, str]] = {"final_lr_ratio": "final", "warmup": "warm_up"}

    kind: Literal["cosine"] = "cosine"
    final_lr_ratio: Share = 0.0
    """Share of the learning rate at the end of the budget."""
    warmup: Warmup = 0.0


class Exponential(FrozenConfig):
    """Exponential decay of the learning rate over the budget."""

    former_names: ClassVar[Mapping[str, str]] = {"final_lr_ratio": "final", "warmup": "warm_up"}

    kind: Literal["exponential"] = "exponential"
    final_lr_ratio: float = Field(default=0.01, gt=0, le=1)
    """Share of the learning rate at the end of the budget."""
    warmup: Warmup = 0.0


class LinearDecay(FrozenConfig):
    """Linear decay of the learning rate, step by step, as HardNet's published code has it.

    Example:
        >>> LinearDecay().final_lr_ratio
        0.0
    """

    kind: Literal["linear"] = "linear"
    final_lr_ratio: Share = 0.0
    """Share of the learning rate at the end of the budget."""
    warmup: Warmup = 0.0


class OneCycle(FrozenConfig):
    """One cycle: half a cosine up to the learning rate, and half a cosine down to almost 0.

    Source: Smith & Topin 2017, arXiv:1708.07120, with the shape of torch's ``OneCycleLR``; the
    momentum stays as it is.

    Example:
        >>> OneCycle(rise=0.2).initial_lr_ratio
        0.04
    """

    kind: Literal["one_cycle"] = "one_cycle"
    rise: float = Field(default=0.3, gt=0, lt=1)
    """Share of the budget at the highest learning rate, which is the optimizer's."""
    initial_lr_ratio: float = Field(default=0.04, gt=0, le=1)
    """Share of the learning rate at the start."""
    final_lr_ratio: float = Field(default=4e-6, ge=0, le=1)
    """Share of the learning rate at the end of the budget."""


Schedule = Annotated[
    Constant | StepDecay | Cosine | Exponential | LinearDecay | OneCycle,
    Field(discriminator="kind"),
]


class EMA(FrozenConfig):
    """Exponential moving average of the weights, which is scored, saved and registered.

    After step t the average keeps min(decay, t / (t + 9)) of itself, so that short trainings do not
    contain their random weights. Statistics of batch normalization are averaged likewise.

    Example:
        >>> EMA().decay
        0.999
    """

    decay: float = Field(default=0.999, ge=0, lt=1)
    """Share of the average that a step keeps."""


Device = Literal["auto", "cpu", "cuda", "xla"]
"""Device; ``auto`` is CUDA if available, else the CPU."""

Precision = Literal["auto", "float32", "bfloat16"]
"""Precision of convolutions of a descriptor in training; ``auto`` is bfloat16 on accelerators.

Weights, losses, denoisers and evaluation are always float32: 8 bits of mantissa are coarser
than a gray level. On a CPU without bfloat16 units bfloat16 is many times slower.
"""


class ComputeConfig(FrozenConfig):
    """Compute settings of all trials of a search: device, precision, compilation, determinism.

    Example:
        >>> ComputeConfig(device="cpu", deterministic=True).compiled
        False
    """

    device: Device = "auto"
    """Device, resolved on every machine that runs a trial."""
    precision: Precision = "auto"
    compiled: bool = False
    """Compile the descriptor's training (``torch.compile``): tens of seconds for the first trial on
    a machine, less for the next, which use the cache in ``TORCHINDUCTOR_CACHE_DIR`` (by default in
    the temporary folder of the machine). Recommended for long budgets."""
    graphed: bool | Literal["auto"] = "auto"
    """Run a training step as one CUDA graph; ``auto`` enables it on CUDA. Convolutions then use the
    fastest algorithm; with ``deterministic`` results are unchanged."""
    deterministic: bool = False
    """Disable nondeterministic operations, whose results vary from run to run on one machine."""


DEFAULT_COMPUTE = ComputeConfig()
"""Default compute settings, chosen for the machine."""
