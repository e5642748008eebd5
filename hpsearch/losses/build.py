"""From a setting to a function of one batch of descriptors."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hpsearch import config
from hpsearch.losses.distances import widened
from hpsearch.losses.metric_losses import (
    batch_all,
    batch_hard,
    contrastive_pairs,
    contrastive_triplets,
    pair_triplets,
    triplet,
)
from hpsearch.losses.restoration import mean_absolute_error, mean_squared_error

BatchLoss = Callable[[Tensor], Tensor]
"""From descriptors (calls, n, d) to a scalar."""


def build_loss(settings: config.Loss, sampler: config.Sampler) -> BatchLoss:
    """What a batch drawn by ``sampler`` pays under ``settings``, computed in float32 or better.

    The function takes (3, n, d), anchors, positives, negatives, from random triplets, (2, n, d),
    anchors and positives, from pairs, and (1, S·K, d), group after group, from S×K batches.

    Raises:
        ValueError: if the loss cannot read the sampler's batches.
    """
    return partial(_in_full_precision, _choose(settings, sampler))


def build_restoration(kind: config.Restoration) -> Callable[[Tensor, Tensor], Tensor]:
    """What restored patches pay against clean ones, (n, …) each, in grey levels."""
    match kind:
        case "mae":
            return mean_absolute_error
        case "mse":
            return mean_squared_error


def _choose(settings: config.Loss, sampler: config.Sampler) -> BatchLoss:
    match sampler:
        case config.RandomTriplets():
            loss = _of_triplets(settings)
        case config.SxK():
            loss = _of_groups(settings, sampler)
        case config.Pairs():
            loss = _of_pairs(settings)
    if loss is None:
        raise ValueError(f"loss {settings.kind!r} cannot read batches of {sampler.kind!r}")
    return loss


def _of_triplets(settings: config.Loss) -> BatchLoss | None:
    match settings:
        case config.Triplet(distance=distance, margin=margin):
            return partial(triplet, distance=distance, margin=margin)
        case config.FaceNet(margin=margin):
            return partial(triplet, distance="squared", margin=margin)
        case config.Contrastive(radius=radius, negative_share=share):
            return partial(contrastive_triplets, radius=radius, negative_share=share)
    return None


def _of_groups(settings: config.Loss, sampler: config.SxK) -> BatchLoss | None:
    match settings:
        case config.BatchHard(distance=distance, margin=margin):
            return partial(batch_hard, views=sampler.views, distance=distance, margin=margin)
        case config.BatchAll(distance=distance, margin=margin, average=average):
            return partial(
                batch_all,
                views=sampler.views,
                distance=distance,
                margin=margin,
                nonzero=average == "nonzero",
            )
    return None


def _of_pairs(settings: config.Loss) -> BatchLoss | None:
    match settings:
        case config.InBatchHard(margin=margin):
            return partial(pair_triplets, q=0.0, combine="mean", margin=margin)
        case config.HardNet(margin=margin):
            return partial(pair_triplets, q=0.0, combine="min", margin=margin)
        case config.Percentile(q=q, combine=combine, margin=margin):
            return partial(pair_triplets, q=q, combine=combine, margin=margin)
        case config.Contrastive(radius=radius, negative_share=share):
            return partial(contrastive_pairs, radius=radius, negative_share=share)
    return None


def _in_full_precision(loss: BatchLoss, descriptors: Tensor) -> Tensor:
    # Distances are differences of near-equal numbers; autocast would take them in bfloat16.
    with torch.autocast(descriptors.device.type, enabled=False):
        return loss(widened(descriptors))
