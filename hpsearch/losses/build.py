"""Construction of loss functions from settings."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from hpsearch import config
from hpsearch.losses.distances import to_float32
from hpsearch.losses.metric_losses import (
    batch_all_loss,
    batch_hard_loss,
    contrastive_pair_loss,
    contrastive_triplet_loss,
    in_batch_triplet_loss,
    triplet_loss,
)
from hpsearch.losses.restoration import mean_absolute_error, mean_squared_error

BatchLoss = Callable[[Tensor], Tensor]
"""Loss function from descriptors (calls, n, d) to a scalar."""


def build_loss(settings: config.Loss, sampler: config.Sampler) -> BatchLoss:
    """Build the loss function of ``settings`` for batches of ``sampler``, in float32 or better.

    The function accepts (3, n, d), anchors, positives, negatives, from random triplets, (2, n, d),
    anchors and positives, from pairs, and (1, P·K, d), group by group, from P×K batches.

    Raises:
        ValueError: if the loss is not defined for the sampler's batches.

    Example:
        >>> loss = build_loss(config.BatchHard(), config.PKSampler(groups=4, views=2))
        >>> loss(torch.zeros(1, 8, 128)).shape
        torch.Size([])
    """
    return partial(_in_full_precision, _loss_function(settings, sampler))


def build_restoration(kind: config.Restoration) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the restoration loss of restored against clean patches, (n, …) in gray levels."""
    match kind:
        case "mae":
            return mean_absolute_error
        case "mse":
            return mean_squared_error


def _loss_function(settings: config.Loss, sampler: config.Sampler) -> BatchLoss:
    match sampler:
        case config.RandomTriplets():
            loss = _triplet_function(settings)
        case config.PKSampler():
            loss = _group_function(settings, sampler)
        case config.Pairs():
            loss = _pair_function(settings)
    if loss is None:
        raise ValueError(f"loss {settings.kind!r} is not defined for batches of {sampler.kind!r}")
    return loss


def _triplet_function(settings: config.Loss) -> BatchLoss | None:
    match settings:
        case config.Triplet(distance=distance, margin=margin):
            return partial(triplet_loss, distance=distance, margin=margin)
        case config.FaceNet(margin=margin):
            return partial(triplet_loss, distance="squared", margin=margin)
        case config.Contrastive(margin=margin, negative_share=share):
            return partial(contrastive_triplet_loss, margin=margin, negative_share=share)
    return None


def _group_function(settings: config.Loss, sampler: config.PKSampler) -> BatchLoss | None:
    match settings:
        case config.BatchHard(distance=distance, margin=margin):
            return partial(batch_hard_loss, views=sampler.views, distance=distance, margin=margin)
        case config.BatchAll(distance=distance, margin=margin, average=average):
            return partial(
                batch_all_loss,
                views=sampler.views,
                distance=distance,
                margin=margin,
                nonzero=average == "nonzero",
            )
    return None


def _pair_function(settings: config.Loss) -> BatchLoss | None:
    match settings:
        case config.InBatchHard(margin=margin):
            return partial(in_batch_triplet_loss, quantile=0.0, combine="mean", margin=margin)
        case config.HardNet(margin=margin):
            return partial(in_batch_triplet_loss, quantile=0.0, combine="min", margin=margin)
        case config.Percentile(quantile=quantile, combine=combine, margin=margin):
            return partial(in_batch_triplet_loss, quantile=quantile, combine=combine, margin=margin)
        case config.Contrastive(margin=margin, negative_share=share):
            return partial(contrastive_pair_loss, margin=margin, negative_share=share)
    return None


def _in_full_precision(loss: BatchLoss, descriptors: Tensor) -> Tensor:
    # Distances are differences of near-equal numbers; autocast would compute them in bfloat16.
    with torch.autocast(descriptors.device.type, enabled=False):
        return loss(to_float32(descriptors))
