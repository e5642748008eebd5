"""Optimizer construction and learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn, optim

from hpsearch.config import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    Optimizer,
    Schedule,
    StepDecay,
)


def build_optimizer(
    config: Optimizer, parameters: Iterable[nn.Parameter], *, captured: bool = False
) -> optim.Optimizer:
    """The optimizer that ``config`` describes, over ``parameters``.

    Args:
        captured: its steps become part of a CUDA graph, so that the rate must be a tensor.
    """
    weights = list(parameters)
    rate = torch.tensor(config.lr, device=weights[0].device) if captured else config.lr
    # One pass over all weights where there is a kernel for it: narrow networks feel the overhead.
    fused = all(weight.device.type in ("cpu", "cuda") for weight in weights)
    match config:
        case SGD():
            return optim.SGD(
                weights,
                lr=rate,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
                fused=fused,
            )
        case Adam():
            return optim.Adam(
                weights,
                lr=rate,
                weight_decay=config.weight_decay,
                fused=fused,
                capturable=captured,
            )
        case AdamW():
            return optim.AdamW(
                weights,
                lr=rate,
                weight_decay=config.weight_decay,
                fused=fused,
                capturable=captured,
            )


def set_lr(optimizer: optim.Optimizer, rate: float) -> None:
    """Let the next step have this learning rate."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def restore_optimizer(optimizer: optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on from the state of an optimizer that may have run on another kind of device.

    How weights are moved (all in one pass, or within a CUDA graph) is for the device that is here,
    and so is the kind of the rate, which every step sets.
    """
    here = [
        {name: group[name] for name in ("fused", "capturable", "lr") if name in group}
        for group in optimizer.param_groups
    ]
    groups = [{**group, **own} for group, own in zip(state["param_groups"], here, strict=True)]
    optimizer.load_state_dict({**state, "param_groups": groups})


def lr_factor(schedule: Schedule, *, seen: int, budget: int) -> float:
    """What the optimizer's rate is multiplied by, in [0, 1].

    Args:
        schedule: the shape of the curve.
        seen: patches seen before the step, at most ``budget``.
        budget: patches that the whole training sees.
    """
    share = seen / budget
    rise = min(1.0, share / schedule.warm_up) if schedule.warm_up else 1.0
    return rise * _decay(schedule, share)


def _decay(schedule: Schedule, share: float) -> float:
    match schedule:
        case Constant():
            return 1.0
        case StepDecay(at=at, factor=factor):
            return factor ** sum(share >= start for start in at)
        case Cosine(final=final):
            return final + (1 - final) * (1 + math.cos(math.pi * share)) / 2
        case Exponential(final=final):
            return final**share
