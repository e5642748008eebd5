"""Optimizer construction and learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn, optim

from hpsearch.config import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    Optimiser,
    Schedule,
    StepDecay,
)


def build_optimiser(config: Optimiser, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """The optimiser that ``config`` describes, over ``parameters``."""
    weights = list(parameters)
    # One pass over all weights where there is a kernel for it: narrow networks feel the overhead.
    fused = all(weight.device.type in ("cpu", "cuda") for weight in weights)
    match config:
        case SGD():
            return optim.SGD(
                weights,
                lr=config.lr,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
                fused=fused,
            )
        case Adam():
            return optim.Adam(weights, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
        case AdamW():
            return optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def set_rate(optimiser: optim.Optimizer, rate: float) -> None:
    """Let the next step have this learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def restore_optimiser(optimiser: optim.Optimizer, state: dict[str, Any]) -> None:
    """Go on from the state of an optimiser that may have run on another kind of device.

    Whether all weights are moved in one pass is for the device that is here.
    """
    here = [group["fused"] for group in optimiser.param_groups]
    groups = [
        {**group, "fused": fused} for group, fused in zip(state["param_groups"], here, strict=True)
    ]
    optimiser.load_state_dict({**state, "param_groups": groups})


def rate_factor(schedule: Schedule, *, seen: int, budget: int) -> float:
    """What the optimiser's rate is multiplied by, in [0, 1].

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
