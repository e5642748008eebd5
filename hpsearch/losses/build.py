"""Construction of loss functions from settings."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hpsearch import config
from hpsearch.config.custom_import import build_object, own_code
from hpsearch.errors import UserError
from hpsearch.losses.distances import to_float32
from hpsearch.losses.library import LibraryLoss, check_library
from hpsearch.losses.metric_losses import (
    batch_all_loss,
    batch_hard_loss,
    batch_triplet_loss,
    contrastive_pair_loss,
    contrastive_triplet_loss,
    in_batch_triplet_loss,
    triplet_loss,
)
from hpsearch.losses.pair_losses import (
    ANGLE_STATISTICS,
    angular_modulation_loss,
    dynamic_soft_margin_loss,
    hardnet_loss,
    hybrid_similarity_loss,
    info_nce_loss,
    smooth_ap_loss,
)
from hpsearch.losses.regularizers import regularization
from hpsearch.losses.restoration import mean_absolute_error, mean_squared_error
from hpsearch.shapes import Float

CALLS_OF_FORM = {config.RandomTriplets: 3, config.Pairs: 2, config.PKSampler: 1}
"""Calls of the network by the sampler that gives a batch its form."""
BatchLoss = Callable[[Tensor], Tensor]
"""Loss function from descriptors (calls, n, d) to a scalar."""


def build_loss(
    settings: config.SingleLoss,
    sampler: config.Sampler,
    *,
    state: Tensor | None = None,
    share: float = 0.0,
) -> BatchLoss:
    """Build the loss function of ``settings`` for batches of ``sampler``, in float32 or better.

    The function accepts (3, n, d), anchors, positives, negatives, from random triplets, (2, n, d),
    anchors and positives, from pairs, and (1, P·K, d), group by group, from P×K batches.

    Args:
        settings: the loss.
        sampler: sampler of the batches.
        state: ``initial_state`` of the loss, updated in place by each call; None is
            the state before the first batch.
        share: spent share of the budget, for losses that depend on it.

    Raises:
        ValueError: if the loss is not defined for the sampler's batches.
        UserError: if a loss of pytorch-metric-learning cannot be had.

    Example:
        >>> loss = build_loss(config.BatchHard(), config.PKSampler(groups=4, views=2))
        >>> loss(torch.zeros(1, 8, 128)).shape
        torch.Size([])
    """
    if state is None:
        state = initial_state(settings)
    return partial(_in_full_precision, _loss_function(settings, sampler, state, share))


def initial_state(
    settings: config.SingleLoss, device: torch.device | str = "cpu"
) -> Float[Tensor, " numbers"]:
    """State of a loss before its first batch, part of the checkpoint; empty for most losses."""
    match settings:
        case config.DynamicSoftMargin(bins=bins):
            return torch.zeros(bins, device=device)
        case config.AngularModulation():
            return torch.zeros(len(ANGLE_STATISTICS), device=device)
    return torch.zeros(0, device=device)


def collapse_value(settings: config.SingleLoss, sampler: config.Sampler) -> float:
    """Loss of an encoder that maps every patch to one point, in batches of ``sampler``.

    Raises:
        UserError: as ``check_library``, or as ``CustomLoss``.

    Example:
        >>> round(collapse_value(config.InfoNCE(), config.Pairs(batch=256)), 3)
        5.545
    """
    if isinstance(settings, config.Library):
        return check_library(settings, sampler)
    if isinstance(settings, config.CustomLoss) and settings.collapse_value is None:
        return _collapse_value_of_own(settings, sampler)
    value = config.collapse_value_of(settings, sampler)
    assert value is not None, "every other loss has a formula"
    return value


def build_regularization(
    terms: Sequence[config.Regularizer], sampler: config.Sampler
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Build the sum of regularizers of descriptors (calls, n, d) and of their norms (calls, n)."""

    def compute(descriptors: Tensor, norms: Tensor | None) -> Tensor:
        def value(x: Tensor) -> Tensor:
            return regularization(terms, sampler, x, None if norms is None else to_float32(norms))

        return _in_full_precision(value, descriptors)

    return compute


def build_restoration(kind: config.Restoration) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the restoration loss of restored against clean patches, (n, …) in gray levels."""
    match kind:
        case "mae":
            return mean_absolute_error
        case "mse":
            return mean_squared_error


def _loss_function(
    settings: config.SingleLoss, sampler: config.Sampler, state: Tensor, share: float
) -> BatchLoss:
    if isinstance(settings, config.CustomLoss):
        return partial(_own_loss, settings, build_object(settings, role="loss"))
    if isinstance(settings, config.Library) and not isinstance(sampler, config.RandomTriplets):
        return LibraryLoss(settings, sampler)
    match sampler:
        case config.RandomTriplets():
            loss = _triplet_function(settings)
        case config.PKSampler():
            loss = _group_function(settings, sampler)
        case config.Pairs():
            loss = _pair_function(settings, state, share)
    if loss is None:
        raise ValueError(f"loss {settings.kind!r} is not defined for batches of {sampler.kind!r}")
    return loss


def _own_loss(settings: config.CustomLoss, loss: BatchLoss, descriptors: Tensor) -> Tensor:
    """Loss of the user's own object, whose result is checked."""
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        raise UserError(
            f"loss {settings.object} has weights of its own, which are not trained; put them into "
            "a network, or leave them out",
            code="custom-loss-with-weights",
        )
    with own_code(settings, "loss"):
        found = loss(descriptors)
    if not isinstance(found, Tensor) or found.dim() > 0:
        shape = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise UserError(
            f"loss {settings.object} must return a tensor of one number, not a "
            f"{' '.join([type(found).__name__, shape]).strip()}; end it with .mean()",
            code="custom-wrong-shape",
        )
    return found


def _collapse_value_of_own(settings: config.CustomLoss, sampler: config.Sampler) -> float:
    """Own loss of a batch of equal unit descriptors."""
    calls = CALLS_OF_FORM[type(sampler)]
    equal = torch.full((calls, sampler.patches // calls, 128), 128**-0.5)
    with torch.random.fork_rng(devices=[]):
        found = float(build_loss(settings, sampler)(equal))
    if not math.isfinite(found):
        raise UserError(
            f"loss {settings.object} is {found} if all descriptors are equal; correct it, or set "
            "its collapse_value",
            code="custom-not-finite",
        )
    return found


def _triplet_function(settings: config.SingleLoss) -> BatchLoss | None:
    match settings:
        case config.Triplet(distance=distance, margin=margin):
            return partial(triplet_loss, distance=distance, margin=margin)
        case config.FaceNet(margin=margin):
            return partial(triplet_loss, distance="squared", margin=margin)
        case config.Contrastive(margin=margin, negative_share=share):
            return partial(contrastive_triplet_loss, margin=margin, negative_share=share)
    return None


def _group_function(settings: config.SingleLoss, sampler: config.PKSampler) -> BatchLoss | None:
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
        case config.BatchTriplet(miner=miner, distance=distance, margin=margin):
            return partial(
                batch_triplet_loss,
                views=sampler.views,
                miner=miner,
                distance=distance,
                margin=margin,
            )
        case config.SmoothAP(temperature=temperature):
            return partial(smooth_ap_loss, views=sampler.views, temperature=temperature)
    return None


def _pair_function(settings: config.SingleLoss, state: Tensor, share: float) -> BatchLoss | None:
    match settings:
        case config.InBatchHard(margin=margin):
            return partial(in_batch_triplet_loss, quantile=0.0, combine="mean", margin=margin)
        case config.HardNet(margin=margin, negatives="between", exponent=1):
            return partial(in_batch_triplet_loss, quantile=0.0, combine="min", margin=margin)
        case config.HardNet(margin=margin, negatives=negatives, exponent=exponent):
            return partial(
                hardnet_loss, margin=margin, everywhere=negatives == "all", exponent=exponent
            )
        case config.Percentile(quantile=quantile, combine=combine, margin=margin):
            return partial(in_batch_triplet_loss, quantile=quantile, combine=combine, margin=margin)
        case config.Contrastive(margin=margin, negative_share=negative_share):
            return partial(contrastive_pair_loss, margin=margin, negative_share=negative_share)
    return _unit_pair_function(settings, state, share)


def _unit_pair_function(
    settings: config.SingleLoss, state: Tensor, share: float
) -> BatchLoss | None:
    match settings:
        case config.HybridSimilarity(alpha=alpha, margin=margin):
            return partial(hybrid_similarity_loss, alpha=alpha, margin=margin)
        case config.DynamicSoftMargin(momentum=momentum):
            return partial(dynamic_soft_margin_loss, momentum=momentum, histogram=state)
        case config.AngularModulation():
            return partial(
                angular_modulation_loss, settings=settings, share=share, statistics=state
            )
        case config.InfoNCE(temperature=temperature):
            return partial(info_nce_loss, temperature=temperature)
        case config.SmoothAP(temperature=temperature):
            return partial(smooth_ap_loss, views=2, temperature=temperature)
    return None


def _in_full_precision(loss: BatchLoss, descriptors: Tensor) -> Tensor:
    # Distances are differences of near-equal numbers; autocast would compute them in bfloat16.
    with torch.autocast(descriptors.device.type, enabled=False):
        return loss(to_float32(descriptors))
