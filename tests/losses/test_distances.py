import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.losses.distances import paired_distance, pairwise_distance

KINDS = ["euclidean", "squared", "mean_squared"]


def by_hand(x, y, kind):
    square = sum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True))
    return {"squared": square, "mean_squared": square / len(x), "euclidean": math.sqrt(square)}[
        kind
    ]


def rows(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
@given(n=st.integers(1, 5), m=st.integers(1, 5), d=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_distances_equal_an_explicit_loop(kind, n, m, d, seed):
    x, y = rows(n, d, seed), rows(m, d, seed + 100)
    expected = torch.tensor([[by_hand(a, b, kind) for b in y] for a in x], dtype=torch.float64)
    torch.testing.assert_close(pairwise_distance(x, y, kind), expected)
    torch.testing.assert_close(paired_distance(x[:1], y[:1], kind), expected[0, :1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [paired_distance, pairwise_distance])
def test_gradients_equal_finite_differences(kind, function):
    x, y = rows(4, 3, 0).requires_grad_(), rows(4, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: function(a, b, kind), (x, y))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", [paired_distance, pairwise_distance])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.7, 1e4])
def test_equal_descriptors_are_at_zero_with_finite_gradient(kind, function, value):
    x = torch.full((5, 8), value, requires_grad=True)
    distance = function(x, x, kind)
    distance.sum().backward()
    assert distance.abs().max() < 1e-6
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("gap", [1e-3, 1e-8, 1e-15, 1e-20])
def test_the_gradient_of_a_tiny_distance_has_length_one(gap):
    x = torch.zeros(1, 4)
    x[0, 0] = gap
    x.requires_grad_()
    paired_distance(x, torch.zeros(1, 4), "euclidean").sum().backward()
    assert x.grad is not None
    assert float(x.grad.norm()) == pytest.approx(1, rel=1e-3)


def test_a_common_offset_costs_no_digits():
    x, y = rows(30, 16, 0), rows(40, 16, 1)
    far = pairwise_distance((x + 1000).float(), (y + 1000).float(), "euclidean")
    torch.testing.assert_close(
        far.double(), pairwise_distance(x, y, "euclidean"), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("function", [paired_distance, pairwise_distance])
def test_half_precision_is_computed_in_float32(dtype, function):
    x, y = rows(6, 32, 0).to(dtype), rows(6, 32, 1).to(dtype)
    got = function(x, y, "euclidean")
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, function(x.float(), y.float(), "euclidean"), rtol=0, atol=0)
