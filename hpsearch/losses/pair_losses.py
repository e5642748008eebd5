"""Losses of pairs after HardNet: hybrid similarity, dynamic margins, InfoNCE and Smooth-AP."""

import math
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from hpsearch.config import AngularModulation, Margin
from hpsearch.losses.distances import margin_loss, paired_distance, pairwise_distance
from hpsearch.losses.miners import percentile_negatives
from hpsearch.shapes import Float, Int

MAX_RANKS_PER_CHUNK = 2**22
"""Maximum number of soft comparisons in memory in Smooth-AP, 16 MiB in float32."""


def hardest_negatives(
    descriptors: Float[Tensor, "2 n d"], *, everywhere: bool
) -> Float[Tensor, " n"]:
    """Distance of each pair's nearest negative, as seen from its anchor and from its positive.

    Args:
        descriptors: anchors and positives, row by row, n at least 2.
        everywhere: True if other anchors are negatives of an anchor too, and other positives of a
            positive; else they are from the other call alone.
    """
    anchor, positive = descriptors
    a, p = anchor.detach(), positive.detach()
    # Distances are monotonic in the squared one, so it mines the same negatives without a root.
    between = percentile_negatives(pairwise_distance(a, p, "squared"), quantile=0)
    found = [
        paired_distance(anchor, positive[between.positive], "euclidean"),
        paired_distance(anchor[between.anchor], positive, "euclidean"),
    ]
    if everywhere:
        for call, fixed in ((anchor, a), (positive, p)):
            others = percentile_negatives(pairwise_distance(fixed, fixed, "squared"), quantile=0)
            found.append(paired_distance(call, call[others.positive], "euclidean"))
    return torch.stack(found).amin(dim=0)


def hardnet_loss(
    descriptors: Float[Tensor, "2 n d"], *, margin: Margin, everywhere: bool, exponent: int
) -> Float[Tensor, ""]:
    """HardNet's loss with more negatives or an exponent: mean of m(d_ii − d_i−)^exponent.

    Source: Mishchuk et al., NeurIPS 2017; with exponent 2 the first-order term of Tian et al.,
    CVPR 2019.
    """
    near = paired_distance(descriptors[0], descriptors[1], "euclidean")
    violation = near - hardest_negatives(descriptors, everywhere=everywhere)
    return margin_loss(violation, margin).pow(exponent).mean()


def hybrid_similarity_loss(
    descriptors: Float[Tensor, "2 n d"], *, alpha: float, margin: float
) -> Float[Tensor, ""]:
    """Mean over pairs of [m + h(d_ii) − h(d_i−)]₊ with h(d) = d + α·d²/2.

    Source: Tian et al., HyNet, NeurIPS 2020, without 1/Z, as in yuruntian/HyNet.
    """
    near = paired_distance(descriptors[0], descriptors[1], "euclidean")
    far = hardest_negatives(descriptors, everywhere=True)
    violation = near - far + alpha / 2 * (near.square() - far.square())
    return torch.relu(margin + violation).mean()


def dynamic_soft_margin_loss(
    descriptors: Float[Tensor, "2 n d"], *, momentum: float, histogram: Float[Tensor, " bins"]
) -> Float[Tensor, ""]:
    """Mean of w(z)·z, where w is the cumulative distribution of the violations z of HardNet.

    Args:
        descriptors: unit anchors and positives, row by row, n at least 2.
        momentum: weight of this batch in the histogram.
        histogram: shares of the violations from −2 to 2 so far, updated in place; zeros at first.

    Source: Zhang & Rusinkiewicz, ICCV 2019, and lg-zhang/dynamic-soft-margin-pytorch.
    """
    near = paired_distance(descriptors[0], descriptors[1], "euclidean")
    violation = near - hardest_negatives(descriptors, everywhere=False)
    with torch.no_grad():
        bins = len(histogram)
        place = (violation.clamp(-2, 2) + 2) * (bins - 1) / 4
        steps = torch.arange(bins, device=place.device, dtype=place.dtype)
        # Each violation counts for its two neighboring bins, without an indexed addition.
        counts = torch.relu(1 - (place[:, None] - steps).abs()).mean(dim=0)
        first = histogram.sum() == 0
        weight = torch.where(first, torch.ones_like(place[0]), momentum)
        histogram.lerp_(counts.to(histogram.dtype), weight.to(histogram.dtype))
        # A product instead of a cumulative sum, which is not deterministic on CUDA.
        below = (steps[:, None] >= steps).to(histogram.dtype) @ histogram
        weights = (below / histogram.sum())[place.long()]
    return (weights * violation).mean()


MAX_COSINE = 1 - 1e-5
"""Largest cosine of which the angle is computed, as in SDGMNet's code: its slope is infinite at 1.
"""
WARM_UP_SHARE = 0.1
"""Share of the budget in which SDGMNet's weights are equal."""
ANGLE_STATISTICS = (
    *("difference_mean", "difference_std", "positive_mean", "positive_std"),
    *("negative_mean", "negative_std", "positive_power", "negative_power"),
)
INITIAL_POWER = 1e4
"""Sum of weights before the first batch, as in SDGMNet's code."""


def angular_modulation_loss(
    descriptors: Float[Tensor, "2 n d"],
    *,
    settings: AngularModulation,
    share: float,
    statistics: Float[Tensor, " 8"],
) -> Float[Tensor, ""]:
    """Sum over pairs of α·wₚ·θ_ii − wₙ·θ_i−, with weights that sum to about 1 over a batch.

    Args:
        descriptors: unit anchors and positives, row by row, n at least 2.
        settings: α, quantile and momentum.
        share: spent share of the budget, in [0, 1).
        statistics: moving statistics (``ANGLE_STATISTICS``), updated in place; zeros at first.

    Source: Ma & Deng, AAAI 2024, as in ACuOoOoO/SDGMNet at commit 4e9dfa0.
    """
    anchor, positive = descriptors
    near = (anchor * positive).sum(dim=1)
    # On unit descriptors the largest cosine is that of the nearest negative.
    far = 1 - hardest_negatives(descriptors, everywhere=True).square() / 2
    near, far = (torch.acos(x.clamp(-MAX_COSINE, MAX_COSINE)) for x in (near, far))
    with torch.no_grad():
        positive_weights, negative_weights = _angle_weights(
            near, far, settings, statistics, warm=share >= WARM_UP_SHARE
        )
    return (settings.alpha * positive_weights * near - negative_weights * far).sum()


def _angle_weights(
    near: Float[Tensor, " n"],
    far: Float[Tensor, " n"],
    settings: AngularModulation,
    statistics: Float[Tensor, " 8"],
    *,
    warm: bool,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    moments = [f(x) for x in (near - far, near, far) for f in (torch.mean, torch.std)]
    first = statistics[6] == 0
    momentum = torch.where(first, torch.ones_like(near[0]), settings.momentum).to(statistics.dtype)
    statistics[:6].lerp_(torch.stack(moments).to(statistics.dtype), momentum)
    (middle, spread), *angles = statistics[:6].view(3, 2).to(near.dtype).unbind()
    deviation = NormalDist().inv_cdf(settings.quantile)
    hard = (near - far >= middle + deviation * spread).to(near.dtype)
    found = []
    for x, (mean, std) in zip((near, far), angles, strict=True):
        usual = torch.exp(-(x - mean).square() / (2 * (math.pi / 6 + std).square()))
        found.append(usual * hard if warm else torch.ones_like(usual))
    powers = torch.stack([weights.sum() for weights in found]).to(statistics.dtype)
    before = torch.where(first, torch.full_like(powers, INITIAL_POWER), statistics[6:])
    statistics[6:].copy_(torch.lerp(before, powers, settings.momentum))
    return found[0] / statistics[6].to(near.dtype), found[1] / statistics[7].to(near.dtype)


def unit_cosines(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Cosines 1 − d²/2 of unit descriptors; those of equal ones are equal to the last bit.

    Products would differ by rounding, which a low temperature makes large.
    """
    return 1 - pairwise_distance(x, y, "squared") / 2


def info_nce_loss(descriptors: Float[Tensor, "2 n d"], *, temperature: float) -> Float[Tensor, ""]:
    """Mean over rows and columns of −ln(exp(s_ii / τ) / Σ_j exp(s_ij / τ)), s the cosines.

    Source: van den Oord et al. 2018, arXiv:1807.03748, with negatives of the batch.
    """
    anchor, positive = descriptors
    logits = unit_cosines(anchor, positive) / temperature
    targets = torch.arange(len(anchor), device=logits.device)
    rows, columns = (
        functional.cross_entropy(logits, targets),
        functional.cross_entropy(logits.T, targets),
    )
    return (rows + columns) / 2


def smooth_ap_loss(
    descriptors: Float[Tensor, "calls n d"], *, views: int, temperature: float
) -> Float[Tensor, ""]:
    """One minus the mean over queries of (1/K)·Σ_i R⁺(i) / R(i), with soft ranks R.

    R(i) is 1 plus the sum over all other patches j of σ((s_qj − s_qi) / τ), and R⁺(i) the same over
    the K patches of the query's point, the query itself among them.

    Args:
        descriptors: unit descriptors: two calls of pairs, or one of groups, group by group.
        views: K, patches of each point.
        temperature: τ.

    Source: Brown et al., ECCV 2020, as in Andrew-Brown1/Smooth_AP.
    """
    x = descriptors.transpose(0, 1).flatten(0, 1) if len(descriptors) == 2 else descriptors[0]
    n = len(x)
    cosines = unit_cosines(x, x)
    start = torch.arange(n, device=x.device) // views * views
    group = start[:, None] + torch.arange(views, device=x.device)
    rows = max(1, MAX_RANKS_PER_CHUNK // (views * n))
    total = x.new_zeros(())
    for part, columns in zip(cosines.split(rows), group.split(rows), strict=True):
        total = total + checkpoint(
            _sum_precisions,
            part,
            columns,
            temperature,
            use_reentrant=False,
            preserve_rng_state=False,
        )
    return 1 - total / n


def _sum_precisions(
    cosines: Float[Tensor, "q n"], group: Int[Tensor, "q k"], temperature: float
) -> Float[Tensor, ""]:
    own = cosines.gather(1, group)
    # Each comparison of a patch with itself adds ½, where the rank counts 1.
    rank = torch.sigmoid((cosines[:, None, :] - own[:, :, None]) / temperature).sum(dim=2) + 0.5
    best = torch.sigmoid((own[:, None, :] - own[:, :, None]) / temperature).sum(dim=2) + 0.5
    return (best / rank).mean(dim=1).sum()
