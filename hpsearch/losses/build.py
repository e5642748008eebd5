"""From a setting to a function of one batch of descriptors."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hpsearch import config
from hpsearch.losses.distances import widened
from hpsearch.losses.triplet import batch_hard, triplet

BatchLoss = Callable[[Tensor], Tensor]
"""From descriptors (calls, n, d) to a scalar."""


def build_loss(settings: config.Loss, sampler: config.Sampler) -> BatchLoss:
    """What a batch drawn by ``sampler`` pays under ``settings``, computed in float32 or better.

    The function takes (3, n, d), anchors, positives, negatives, from random triplets and
    (1, S·K, d), group after group, from S×K batches.

    Raises:
        ValueError: if the loss cannot read the sampler's batches.
    """
    return partial(_in_full_precision, _choose(settings, sampler))


def _choose(settings: config.Loss, sampler: config.Sampler) -> BatchLoss:
    match settings, sampler:
        case config.Triplet(distance=distance, margin=margin), config.RandomTriplets():
            return partial(triplet, distance=distance, margin=margin)
        case config.BatchHard(distance=distance, margin=margin), config.SxK(groups=s, views=k):
            return partial(batch_hard, groups=s, views=k, distance=distance, margin=margin)
        case _:
            raise ValueError(f"loss {settings.kind!r} cannot read batches of {sampler.kind!r}")


def _in_full_precision(loss: BatchLoss, descriptors: Tensor) -> Tensor:
    # Distances are differences of near-equal numbers; autocast would take them in bfloat16.
    with torch.autocast(descriptors.device.type, enabled=False):
        return loss(widened(descriptors))
