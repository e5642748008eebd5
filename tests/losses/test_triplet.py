import math

import pytest
import torch

from hpsearch.config import (
    BatchHard,
    HardMargin,
    RandomTriplets,
    SoftMargin,
    SxK,
    Triplet,
)
from hpsearch.losses import build_loss

KINDS = ["euclidean", "squared", "mean_squared"]
MARGINS = [HardMargin(alpha=0.3), HardMargin(alpha=3.0), SoftMargin(), SoftMargin(alpha=1.0)]


def distance(x, y, kind):
    square = (x - y).square().sum()
    if kind == "euclidean":
        return square.sqrt() if square > 0 else 0 * square
    return square / len(x) if kind == "mean_squared" else square


def pays(z, margin):
    if isinstance(margin, HardMargin):
        return (z + margin.alpha).clamp_min(0)
    return torch.log1p(torch.exp(z + margin.alpha))


def slow_triplet(x, kind, margin):
    rows = [
        pays(distance(a, p, kind) - distance(a, n, kind), margin)
        for a, p, n in zip(*x, strict=True)
    ]
    return torch.stack(rows).mean()


def slow_batch_hard(x, groups, views, kind, margin):
    x, total = x[0], []
    for i in range(groups * views):
        same = [
            distance(x[i], x[j], kind) for j in range(len(x)) if j // views == i // views and j != i
        ]
        other = [distance(x[i], x[j], kind) for j in range(len(x)) if j // views != i // views]
        total.append(pays(torch.stack(same).max() - torch.stack(other).min(), margin))
    return torch.stack(total).mean()


def batch(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_gradient(loss, x):
    x = x.clone().requires_grad_()
    value = loss(x)
    (gradient,) = torch.autograd.grad(value, x)
    return value, gradient


def assert_same(fast, slow, x):
    for got, expected in zip(value_and_gradient(fast, x), value_and_gradient(slow, x), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", MARGINS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triplet_equals_an_explicit_loop(kind, margin, dtype):
    fast = build_loss(Triplet(distance=kind, margin=margin), RandomTriplets(batch=6))
    x = 0.3 * batch(3, 6, 8, dtype=dtype)
    assert_same(fast, lambda y: slow_triplet(y, kind, margin), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", MARGINS, ids=repr)
@pytest.mark.parametrize(("groups", "views"), [(2, 2), (5, 3), (3, 6)])
def test_batch_hard_equals_an_explicit_loop(kind, margin, groups, views):
    settings = BatchHard(distance=kind, margin=margin)
    fast = build_loss(settings, SxK(groups=groups, views=views))
    for dtype in (torch.float32, torch.float64):
        x = 0.5 * batch(1, groups * views, 8, dtype=dtype)
        assert_same(fast, lambda y: slow_batch_hard(y, groups, views, kind, margin), x)


CASES = [
    pytest.param(Triplet, RandomTriplets(batch=6), (3, 6), id="triplet"),
    pytest.param(BatchHard, SxK(groups=3, views=2), (1, 6), id="batch_hard"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", MARGINS, ids=repr)
@pytest.mark.parametrize(("loss", "sampler", "shape"), CASES)
def test_a_constant_encoder_pays_exactly_the_collapse_value(kind, margin, loss, sampler, shape):
    settings = loss(distance=kind, margin=margin)
    for value in (0.0, 0.0884, 1.0, 37.3):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.full((*shape, 128), value, dtype=dtype)
            paid, gradient = value_and_gradient(build_loss(settings, sampler), x)
            assert float(paid) == pytest.approx(settings.collapse_value, abs=1e-6)
            assert gradient.isfinite().all()


def test_known_collapse_values():
    assert Triplet().collapse_value == 1.0
    assert BatchHard(margin=HardMargin(alpha=0.01)).collapse_value == 0.01
    assert BatchHard(margin=SoftMargin()).collapse_value == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", MARGINS, ids=repr)
def test_adversarial_batches_have_finite_gradients_and_the_loop_s_value(kind, margin):
    settings, sampler = BatchHard(distance=kind, margin=margin), SxK(groups=3, views=3)
    loss = build_loss(settings, sampler)
    one_pair = torch.zeros(1, 9, 8)
    one_pair[0, 4] = 1.0
    equal_groups = batch(1, 3, 8, dtype=torch.float32).repeat_interleave(3, dim=1)
    shared_views = batch(1, 3, 8, dtype=torch.float32).repeat(1, 3, 1)
    for x in (one_pair, equal_groups, shared_views, 1e4 * equal_groups):
        paid, gradient = value_and_gradient(loss, x)
        torch.testing.assert_close(paid, slow_batch_hard(x, 3, 3, kind, margin))
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("loss", "sampler", "shape"), CASES)
def test_half_precision_pays_what_float32_pays_on_the_same_numbers(loss, sampler, shape):
    pays = build_loss(loss(), sampler)
    x = batch(*shape, 32).bfloat16()
    assert torch.equal(pays(x), pays(x.float()))


@pytest.mark.parametrize(("loss", "sampler", "shape"), CASES)
def test_autocast_does_not_change_the_loss(loss, sampler, shape):
    pays = build_loss(loss(), sampler)
    x = batch(*shape, 32, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = pays(x)
    assert torch.equal(inside, pays(x))


def test_a_network_under_the_loss_learns_from_the_first_step():
    x = batch(1, 12, 16, dtype=torch.float32)
    loss = build_loss(BatchHard(), SxK(groups=4, views=3))
    before = loss(x)
    _, gradient = value_and_gradient(loss, x)
    assert loss(x - 0.1 * gradient) < before


def test_a_loss_refuses_batches_it_cannot_read():
    with pytest.raises(ValueError, match="cannot read"):
        build_loss(Triplet(), SxK())
