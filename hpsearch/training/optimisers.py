"""From a setting to a torch optimiser."""

from collections.abc import Iterable

from torch import nn, optim

from hpsearch.config import SGD, Adam, Optimiser


def build_optimiser(config: Optimiser, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """The optimiser that ``config`` describes, over ``parameters``."""
    match config:
        case SGD():
            return optim.SGD(
                parameters,
                lr=config.lr,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
            )
        case Adam():
            return optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay)
