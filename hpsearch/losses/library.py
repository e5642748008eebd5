"""Losses and miners of pytorch-metric-learning, by name and arguments."""

import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.config import Library, PKSampler, Sampler
from hpsearch.errors import UserError
from hpsearch.shapes import Float, Int

PACKAGE = "pytorch_metric_learning"
INSTALL = 'pip install "hpsearch[metric-learning]"'
CLASS_ARGUMENTS = {
    "distance": "distances",
    "reducer": "reducers",
    "embedding_regularizer": "regularizers",
}
"""Arguments whose value is the name of a class, and the module of the class."""
HEAD_ARGUMENTS = frozenset({"num_classes", "embedding_size", "embedding_sz"})
"""Arguments of losses that have the weights of a classifier."""
STATEFUL = {"DynamicSoftMarginLoss": "DynamicSoftMargin"}
"""Losses whose state a checkpoint would lose, and the loss of hpsearch that keeps it."""


class LibraryLoss(nn.Module):
    """Loss of pytorch-metric-learning on the descriptors of a batch, with an optional miner.

    Args:
        settings: names and arguments.
        sampler: sampler of the batches, ``Pairs`` or ``PKSampler``.

    Raises:
        UserError: if the package is not installed, has no such loss or miner, or refuses the
            arguments; if the loss has weights or a state of its own.
    """

    def __init__(self, settings: Library, sampler: Sampler) -> None:
        super().__init__()
        self.views = sampler.views if isinstance(sampler, PKSampler) else 1
        self.loss = _build("losses", settings.loss, settings.params)
        self.miner = (
            None
            if settings.miner is None
            else _build("miners", settings.miner, settings.miner_params)
        )
        self.name = settings.loss

    def forward(self, descriptors: Float[Tensor, "calls n d"]) -> Float[Tensor, ""]:
        """Loss of a batch; two calls are anchors and positives, one is group by group."""
        x = descriptors.flatten(0, 1)
        labels = self._labels(descriptors)
        mined = None if self.miner is None else self.miner(x, labels)
        value = self.loss(x, labels, mined)
        # A batch without a pair that counts is a plain 0 there, which has no gradient.
        return value if value.requires_grad or not x.requires_grad else value + 0 * x.sum()

    def _labels(self, descriptors: Float[Tensor, "calls n d"]) -> Int[Tensor, " patches"]:
        calls, n, _ = descriptors.shape
        points = torch.arange(n, device=descriptors.device) // self.views
        return points.repeat(calls)


def check_library(settings: Library, sampler: Sampler) -> float:
    """Collapse value of a loss of pytorch-metric-learning: its value on a constant batch.

    Raises:
        UserError: as ``LibraryLoss``, or if the loss fails on the batch, or is not finite.
    """
    loss = LibraryLoss(settings, sampler)
    calls = 1 if isinstance(sampler, PKSampler) else 2
    # Unit descriptors of equal numbers; their direction does not matter, being the same.
    batch = torch.full((calls, sampler.patches // calls, 128), 128**-0.5, requires_grad=True)
    try:
        with torch.random.fork_rng(devices=[]):
            seed_library(0)
            value = loss(batch)
        if value.requires_grad:
            value.backward()
        found = float(value.detach())
    except Exception as error:  # whatever the package raises
        raise UserError(
            f"loss {settings.loss!r} of {PACKAGE} cannot be computed for batches of "
            f"{sampler.kind!r} ({first_line(error)}); choose another loss, miner or sampler"
        ) from error
    if not np.isfinite(found):
        raise UserError(
            f"loss {settings.loss!r} of {PACKAGE} is {found} if all descriptors are equal; "
            "correct its params, or choose another loss"
        )
    return found


def seed_library(seed: int) -> None:
    """Seed the random draws of pytorch-metric-learning, which are on the CPU, for one step."""
    torch.default_generator.manual_seed(seed)
    functions = _import(f"{PACKAGE}.utils.common_functions")
    setattr(functions, "NUMPY_RANDOM", np.random.RandomState(seed % 2**32))  # noqa: B010


def _build(module: str, name: str, params: Mapping[str, Any]) -> nn.Module:
    found = getattr(_import(f"{PACKAGE}.{module}"), name, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise UserError(
            f"{PACKAGE} has no {name!r} in its {module}; take a name from its documentation"
        )
    if name in STATEFUL:
        raise UserError(
            f"{name!r} of {PACKAGE} has a state that a checkpoint would lose; "
            f"use loss {STATEFUL[name]} of hpsearch instead"
        )
    arguments = inspect.signature(found.__init__).parameters
    if HEAD_ARGUMENTS & arguments.keys():
        raise UserError(
            f"{name!r} of {PACKAGE} needs a class head, with weights for every class; "
            "patches have no classes, so choose a loss of pairs or triplets"
        )
    built = _construct(found, module, params)
    if any(True for _ in built.parameters()):
        raise UserError(
            f"{name!r} of {PACKAGE} learns weights of its own, which are not part of a trial; "
            "turn that off in its params, or choose another"
        )
    return built


def _construct(kind: type[nn.Module], module: str, params: Mapping[str, Any]) -> nn.Module:
    arguments = {
        name: _build(CLASS_ARGUMENTS[name], value, {})
        if name in CLASS_ARGUMENTS and isinstance(value, str)
        else value
        for name, value in params.items()
    }
    try:
        return kind(**arguments)
    except UserError:
        raise
    except Exception as error:  # whatever a constructor raises
        raise UserError(
            f"{kind.__name__!r} of {PACKAGE}.{module} refuses its params ({first_line(error)}); "
            "correct them"
        ) from error


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"loss 'library' needs {PACKAGE}, which cannot be imported here "
            f"({first_line(error)}); install it on every worker: {INSTALL}"
        ) from error


def first_line(error: BaseException) -> str:
    """First line of an error's text, without its full stop, or the name of its type."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
