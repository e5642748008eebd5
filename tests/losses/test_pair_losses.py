"""Losses with a state, against loops, and all pair losses against pytorch-metric-learning."""

import math
from statistics import NormalDist

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hpsearch.config import (
    AngularModulation,
    DynamicSoftMargin,
    HybridSimilarity,
    InfoNCE,
    Pairs,
    PKSampler,
    SmoothAP,
)
from hpsearch.losses import build_loss, initial_state

PAIRS = Pairs(batch=7)


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return functional.normalize(x, dim=-1).to(dtype)


def close_pairs(*, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Seven pairs, nearer to each other than to the rest."""
    anchor = unit(7, 8, seed=seed)
    positive = functional.normalize(anchor + 0.3 * unit(7, 8, seed=seed + 99), dim=-1)
    return torch.stack([anchor, positive]).to(dtype)


def violations(x: Tensor) -> list[Tensor]:
    a, p = x
    found = []
    for i in range(len(a)):
        others = [j for j in range(len(a)) if j != i]
        negatives = [(a[i] - p[j]).norm() for j in others] + [(a[j] - p[i]).norm() for j in others]
        found.append((a[i] - p[i]).norm() - min(negatives))
    return found


def slow_dynamic_margin(batches: list[Tensor], *, bins: int, momentum: float) -> list[Tensor]:
    """Losses of batches in turn: each violation is shared between the two bins beside it."""
    histogram, loss_values = [0.0] * bins, []
    width = 4 / (bins - 1)
    for number, x in enumerate(batches):
        z = violations(x)
        known = [float(one.detach()) for one in z]
        counts = [0.0] * bins
        for one in known:
            place = (one + 2) / width
            low = int(place)
            counts[low] += (1 - (place - low)) / len(z)
            if low + 1 < bins:
                counts[low + 1] += (place - low) / len(z)
        weight = momentum if number else 1.0
        histogram = [(1 - weight) * h + weight * c for h, c in zip(histogram, counts, strict=True)]
        weights = [sum(histogram[: int((one + 2) / width) + 1]) for one in known]
        terms = [w * one for w, one in zip(weights, z, strict=True)]
        loss_values.append(torch.stack(terms).mean())
    return loss_values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dynamic_margins_equal_the_loop_batch_after_batch(dtype: torch.dtype) -> None:
    settings = DynamicSoftMargin(bins=64, momentum=0.2)
    state = initial_state(settings).to(dtype)
    loss = build_loss(settings, PAIRS, state=state)
    batches = [close_pairs(seed=seed, dtype=dtype).requires_grad_() for seed in range(4)]
    expected = slow_dynamic_margin(batches, bins=64, momentum=0.2)
    for x, value in zip(batches, expected, strict=True):
        found = loss(x)
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)
        (mine,), (other,) = (torch.autograd.grad(y, x) for y in (found, value))
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert float(state.sum()) == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dynamic_margins_are_zero_at_a_collapse_and_survive_the_ends_of_the_histogram(
    dtype: torch.dtype,
) -> None:
    settings = DynamicSoftMargin(bins=16)
    loss = build_loss(settings, PAIRS)
    x = torch.full((2, 7, 128), 128**-0.5, dtype=dtype, requires_grad=True)
    value = loss(x)
    value.backward()
    assert float(value.detach()) == pytest.approx(settings.collapse_value, abs=1e-6)
    assert x.grad is not None
    assert x.grad.isfinite().all()
    point = torch.eye(8)[:1].expand(7, 8)
    opposite = build_loss(settings, PAIRS)(torch.stack([point, -point]))  # d(a, p) = d(a, n) = 2
    assert float(opposite) == pytest.approx(0)
    wrong = torch.stack([torch.cat([point[:6], -point[:1]]), torch.cat([-point[:6], point[:1]])])
    assert build_loss(settings, PAIRS)(wrong).isfinite()


def slow_angles(batches: list[Tensor], settings: AngularModulation, *, warm: bool) -> list[Tensor]:
    """Losses of batches in turn, after the published code without its mask."""
    moments: list[float] | None = None
    powers, loss_values = [1e4, 1e4], []
    m = settings.momentum
    for x in batches:
        a, p = x
        n = len(a)
        near, far = [], []
        for i in range(n):
            others = [j for j in range(n) if j != i]
            negatives = [a[i] @ p[j] for j in others] + [p[i] @ a[j] for j in others]
            negatives += [a[i] @ a[j] for j in others] + [p[i] @ p[j] for j in others]
            near.append(torch.acos((a[i] @ p[i]).clamp(max=1 - 1e-5)))
            far.append(torch.acos(max(negatives).clamp(max=1 - 1e-5)))
        theta_p, theta_n = (torch.stack(t).detach() for t in (near, far))
        now = [
            float(f(t))
            for t in (theta_p - theta_n, theta_p, theta_n)
            for f in (torch.mean, torch.std)
        ]
        old = moments or now
        moments = [(1 - m) * u + m * v for u, v in zip(old, now, strict=True)]
        bound = NormalDist(moments[0], moments[1]).inv_cdf(settings.quantile)
        weights = []
        for t, mean, std in ((theta_p, *moments[2:4]), (theta_n, *moments[4:])):
            bell = torch.exp(-((t - mean) ** 2) / 2 / (math.pi / 6 + std) ** 2)
            weights.append(bell * (theta_p - theta_n >= bound) if warm else torch.ones_like(t))
        powers = [(1 - m) * u + m * float(w.sum()) for u, w in zip(powers, weights, strict=True)]
        terms = [
            settings.alpha * weights[0][i] / powers[0] * near[i]
            - weights[1][i] / powers[1] * far[i]
            for i in range(n)
        ]
        loss_values.append(torch.stack(terms).sum())
    return loss_values


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_angular_modulation_equals_the_loop_batch_after_batch(share: float) -> None:
    settings = AngularModulation(momentum=0.3, quantile=0.4)
    state = initial_state(settings).double()
    loss = build_loss(settings, PAIRS, state=state, share=share)
    batches = [close_pairs(seed=seed).requires_grad_() for seed in range(4)]
    expected = slow_angles(batches, settings, warm=share > 0)
    for x, value in zip(batches, expected, strict=True):
        found = loss(x)
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-12)
        (mine,), (other,) = (torch.autograd.grad(y, x) for y in (found, value))
        # The distance has a gradient along the descriptor too, which unit norm takes away.
        torch.testing.assert_close(tangential(mine, x), tangential(other, x), rtol=1e-8, atol=1e-12)


def tangential(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient - (gradient * x).sum(dim=-1, keepdim=True) * x.detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_angular_modulation_is_nearly_zero_at_a_collapse(share: float, dtype: torch.dtype) -> None:
    loss = build_loss(AngularModulation(), PAIRS, share=share)
    x = torch.full((2, 7, 128), 128**-0.5, dtype=dtype, requires_grad=True)
    value = loss(x)
    value.backward()
    assert abs(float(value.detach())) < 1e-3, "an angle of 0 is computed as 0.0045"
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    "settings", [HybridSimilarity(), InfoNCE(temperature=0.2), SmoothAP(temperature=0.1)]
)
def test_gradients_equal_finite_differences(
    settings: HybridSimilarity | InfoNCE | SmoothAP,
) -> None:
    x = close_pairs().requires_grad_()
    assert torch.autograd.gradcheck(build_loss(settings, PAIRS), (x,))


def test_smooth_ap_in_chunks_equals_smooth_ap_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, loss = unit(1, 12, 8), build_loss(SmoothAP(), PKSampler(groups=4, views=3))
    whole = loss(x)
    monkeypatch.setattr("hpsearch.losses.pair_losses.MAX_RANKS_PER_CHUNK", 80)  # 36 a query
    torch.testing.assert_close(loss(x), whole)


def test_smooth_ap_of_a_perfect_retrieval_is_zero_and_of_the_worst_is_known() -> None:
    apart = torch.eye(4).repeat_interleave(2, dim=0)[None]
    loss = build_loss(SmoothAP(temperature=1e-3), PKSampler(groups=4, views=2))
    assert float(loss(apart)) == pytest.approx(0, abs=1e-6)
    # Both of the first point are farthest from each other: rank 1 is the query, rank 4 the other.
    four = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, 1]])[None]
    found = float(build_loss(SmoothAP(temperature=1e-3), PKSampler(groups=2, views=2))(four))
    first = (1 + 2 / 4) / 2
    second = (1.5 / 1.5 + 1.5 / 1.5) / 2  # the other point's two coincide: half a rank each
    assert found == pytest.approx(1 - (first + second) / 2, abs=1e-6)


@pytest.fixture
def library() -> object:
    return pytest.importorskip(
        "pytorch_metric_learning.losses", reason="needs the extra metric-learning"
    )


def test_info_nce_equals_ntxent_of_both_directions(library: object) -> None:
    a, p = close_pairs()
    theirs, labels = library.NTXentLoss(temperature=0.1), torch.arange(7)  # type: ignore[attr-defined]
    both = [theirs(x, labels, ref_emb=y, ref_labels=labels.clone()) for x, y in ((a, p), (p, a))]
    mine = build_loss(InfoNCE(temperature=0.1), PAIRS)(torch.stack([a, p]))
    torch.testing.assert_close(mine, (both[0] + both[1]) / 2)


def test_dynamic_margins_equal_the_library_s_over_several_batches(library: object) -> None:
    """Its bins start at −2 with a width of 4 / bins, so ours need one more for the same width.

    It adds the counts of a batch to shares, so that its momentum grows with the batch; the
    authors' code divides them first.
    """
    theirs = library.DynamicSoftMarginLoss(num_bins=40, momentum=0.1)  # type: ignore[attr-defined]
    momentum = 0.1 * 7 / (0.9 + 0.1 * 7)
    state = initial_state(settings := DynamicSoftMargin(bins=41, momentum=momentum)).double()
    loss = build_loss(settings, PAIRS, state=state)
    for seed in range(3):
        a, p = close_pairs(seed=seed)
        torch.testing.assert_close(loss(torch.stack([a, p])), theirs(a, ref_emb=p))


def test_smooth_ap_equals_the_library_s_where_that_is_right(library: object) -> None:
    """It takes the number of groups for their size, so only squares of it agree."""
    x = unit(9, 8)
    labels = torch.arange(3).repeat_interleave(3)
    theirs = library.SmoothAPLoss(temperature=0.1)(x, labels)  # type: ignore[attr-defined]
    mine = build_loss(SmoothAP(temperature=0.1), PKSampler(groups=3, views=3))(x[None])
    torch.testing.assert_close(mine, theirs, check_dtype=False, rtol=1e-5, atol=1e-6)
