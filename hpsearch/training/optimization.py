"""Optimizer construction and learning-rate schedules."""

import copy
import inspect
import math
from collections.abc import Iterable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn, optim

from hpsearch.config import (
    EMA,
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    LinearDecay,
    OneCycle,
    Optimizer,
    Schedule,
    StepDecay,
)

OptimizerType = TypeVar("OptimizerType", bound=optim.Optimizer)


def build_optimizer(
    config: Optimizer, parameters: Iterable[nn.Parameter], *, captured: bool = False
) -> optim.Optimizer:
    """Build the optimizer of ``config`` over ``parameters``.

    Args:
        config: setting of the optimizer.
        parameters: trainable parameters.
        captured: True if its steps are captured in a CUDA graph, so that the learning rate must
            be a tensor.
    """
    weights = list(parameters)
    rate = torch.tensor(config.lr, device=weights[0].device) if captured else config.lr
    # Fused over all weights where a kernel exists, because of the overhead in narrow networks.
    fused = all(weight.device.type in ("cpu", "cuda") for weight in weights)
    match config:
        case SGD():
            return _optimizer_class(optim.SGD, captured=captured)(
                weights,
                lr=rate,
                momentum=config.momentum,
                dampening=config.dampening,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
                fused=fused,
            )
        case Adam():
            return _optimizer_class(optim.Adam, captured=captured)(
                weights,
                lr=rate,
                weight_decay=config.weight_decay,
                fused=fused,
                capturable=captured,
            )
        case AdamW():
            return _optimizer_class(optim.AdamW, captured=captured)(
                weights,
                lr=rate,
                weight_decay=config.weight_decay,
                fused=fused,
                capturable=captured,
            )


COMPILER_METHODS = ("zero_grad", "add_param_group", "state_dict", "load_state_dict")
"""Methods of torch's optimizers that it keeps out of compiled code, apart from ``step``."""


def _optimizer_class(kind: type[OptimizerType], *, captured: bool) -> type[OptimizerType]:
    """Class of optimizers with the same steps that does not import torch's compiler.

    torch 2.13 marks these methods for ``torch.compile`` by importing ``torch._dynamo`` when one is
    first called, which takes a second of every process that trains, as long as torch itself. No
    step of ours is within compiled code, so the functions that torch wraps are called directly.
    """
    step = getattr(kind.step, "__wrapped__", None)
    if captured or step is None:  # the latter in a version of torch that wraps nothing
        return kind
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in COMPILER_METHODS}
    methods["step"] = torch.no_grad()(step)
    return cast("type[OptimizerType]", type(kind.__name__, (kind,), methods))


def set_lr(optimizer: optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def restore_optimizer(optimizer: optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore the state of an optimizer, possibly from another kind of device.

    Implementation options (fused, capturable) and the type of the learning rate are those of this
    device.
    """
    here = [
        {name: group[name] for name in ("fused", "capturable", "lr") if name in group}
        for group in optimizer.param_groups
    ]
    groups = [{**group, **own} for group, own in zip(state["param_groups"], here, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})


def lr_factor(schedule: Schedule, *, seen: int, budget: int) -> float:
    """Factor on the optimizer's learning rate, in [0, 1].

    Args:
        schedule: setting of the schedule.
        seen: patches seen before the step, at most ``budget``.
        budget: patches seen in the whole training.
    """
    share = seen / budget
    if isinstance(schedule, OneCycle):
        return _cycle(schedule, share)
    rise = min(1.0, share / schedule.warmup) if schedule.warmup else 1.0
    return rise * _decay(schedule, share)


def _cycle(schedule: OneCycle, share: float) -> float:
    """Half a cosine from the initial share to 1, and half a cosine to the final one."""
    low, part = (
        (schedule.initial_lr_ratio, 1 - share / schedule.rise)
        if share < schedule.rise
        else (schedule.final_lr_ratio, (share - schedule.rise) / (1 - schedule.rise))
    )
    return low + (1 - low) * (1 + math.cos(math.pi * part)) / 2


def _decay(
    schedule: Constant | StepDecay | Cosine | Exponential | LinearDecay, share: float
) -> float:
    match schedule:
        case Constant():
            return 1.0
        case StepDecay(milestones=milestones, gamma=gamma):
            return gamma ** sum(share >= start for start in milestones)
        case Cosine(final_lr_ratio=final):
            return final + (1 - final) * (1 + math.cos(math.pi * share)) / 2
        case Exponential(final_lr_ratio=final):
            return final**share
        case LinearDecay(final_lr_ratio=final):
            return 1 - (1 - final) * share


class WeightAverage:
    """Exponential moving average of a network's weights and statistics, updated after each step.

    Args:
        settings: setting of the average.
        network: network in training, of which a copy is kept.

    Source: Polyak & Juditsky 1992; the share of the first steps as in TensorFlow's
    ``ExponentialMovingAverage``.
    """

    def __init__(self, settings: EMA, network: nn.Module) -> None:
        self.settings = settings
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.share = torch.zeros((), device=next(network.parameters()).device)
        """Share of the latest weights in the next update, a tensor so that graphs can read it."""

    def prepare(self, step: int) -> None:
        """Set the share of the next update, after the training step of this number."""
        self.share.fill_(1 - min(self.settings.decay, step / (step + 9)))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average toward the weights of ``network``; counts are copied."""
        averages = self.network.state_dict()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                averages[name].lerp_(value, self.share.to(value.dtype))
            else:
                averages[name].copy_(value)
