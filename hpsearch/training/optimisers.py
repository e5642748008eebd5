"""From a setting to a torch optimiser."""

from collections.abc import Iterable
from typing import Any

from torch import nn, optim

from hpsearch.config import SGD, Adam, AdamW, Optimiser


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
