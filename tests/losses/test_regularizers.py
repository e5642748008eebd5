"""Regularizers against loops that are written from their formulas."""

import pytest
import torch
from torch import Tensor

from hpsearch.config import (
    GOR,
    SOSR,
    NormDifference,
    Pairs,
    PKSampler,
    RandomTriplets,
    Regularizer,
    Sampler,
)
from hpsearch.losses import build_regularization, similarity_difference

PAIRS, GROUPS, TRIPLETS = Pairs(batch=6), PKSampler(groups=3, views=2), RandomTriplets(batch=6)
SHAPES = {"pairs": (2, 6), "sxk": (1, 6), "random_triplets": (3, 6)}


def batch(sampler: Sampler, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*SHAPES[sampler.kind], 5, generator=generator, dtype=torch.float64).to(dtype)


def slow_sosr(x: Tensor, k: int) -> Tensor:
    a, p = x
    n, parts = len(a), []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        near = set()
        for call in (a, p):
            near |= set(
                sorted(others, key=lambda j, call=call: float((call[i] - call[j]).detach().norm()))[
                    :k
                ]
            )
        total = sum(((a[i] - a[j]).norm() - (p[i] - p[j]).norm()) ** 2 for j in near)
        parts.append(torch.as_tensor(total).sqrt())
    return torch.stack(parts).mean()


def slow_gor(x: Tensor, sampler: Sampler) -> Tensor:
    def cosine(u: Tensor, v: Tensor) -> Tensor:
        return u @ v / u.norm() / v.norm()

    n = x.shape[1]
    match sampler:
        case RandomTriplets():
            found = [cosine(x[0][i], x[2][i]) for i in range(n)]
        case Pairs():
            found = [cosine(x[0][i], x[1][j]) for i in range(n) for j in range(n) if i != j]
        case PKSampler(views=views):
            found = [
                cosine(x[0][i], x[0][j])
                for i in range(n)
                for j in range(n)
                if i // views != j // views
            ]
    s = torch.stack(found)
    return s.mean() ** 2 + ((s**2).mean() - 1 / x.shape[2]).clamp_min(0)


def value_and_gradient(function: object, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = function(x)  # type: ignore[operator]
    return value.detach(), torch.autograd.grad(value, x)[0]


@pytest.mark.parametrize("neighbors", [1, 2, 5, 99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sosr_equals_the_loop(neighbors: int, dtype: torch.dtype) -> None:
    term = build_regularization([SOSR(neighbors=neighbors, weight=0.5)], PAIRS)
    x = batch(PAIRS, dtype=dtype)
    got = value_and_gradient(lambda y: term(y, None), x)
    torch.testing.assert_close(got, value_and_gradient(lambda y: 0.5 * slow_sosr(y, neighbors), x))


@pytest.mark.parametrize("sampler", [PAIRS, GROUPS, TRIPLETS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gor_equals_the_loop(sampler: Sampler, dtype: torch.dtype) -> None:
    term, x = build_regularization([GOR(weight=3)], sampler), batch(sampler, dtype=dtype)
    got = value_and_gradient(lambda y: term(y, None), x)
    torch.testing.assert_close(got, value_and_gradient(lambda y: 3 * slow_gor(y, sampler), x))


def test_terms_add_up_and_norms_are_compared() -> None:
    x, norms = batch(PAIRS), torch.tensor([[1.0, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 9]])
    terms = [SOSR(neighbors=2), NormDifference(weight=0.1), GOR(weight=2)]
    found = build_regularization(terms, PAIRS)(x, norms)
    expected = slow_sosr(x, 2) + 0.1 * 9 / 6 + 2 * slow_gor(x, PAIRS)
    torch.testing.assert_close(found, expected, check_dtype=False)


@pytest.mark.parametrize("term", [SOSR(), GOR(weight=0.3), NormDifference()])
@pytest.mark.parametrize("sampler", [PAIRS, GROUPS, TRIPLETS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_encoder_has_the_collapse_value_and_finite_gradients(
    term: Regularizer, sampler: Sampler, dtype: torch.dtype
) -> None:
    if not isinstance(term, GOR) and sampler is not PAIRS:
        pytest.skip("defined for pairs alone")
    compute = build_regularization([term], sampler)
    x = torch.full((*SHAPES[sampler.kind], 128), 0.5, dtype=dtype)
    value, gradient = value_and_gradient(lambda y: compute(y, y.float().norm(dim=-1)), x)
    assert float(value.detach()) == pytest.approx(term.collapse_value(128), abs=1e-5)
    assert gradient.isfinite().all()


def test_equal_patches_and_equal_views_give_finite_gradients() -> None:
    compute = build_regularization([SOSR(neighbors=3), GOR()], PAIRS)
    lone = torch.zeros(2, 6, 5)
    lone[0, 1] = 1.0
    same_views = batch(PAIRS)[:1].repeat(2, 1, 1)
    same_points = batch(PAIRS)[:, :1].repeat(1, 6, 1)
    for x in (lone, same_views, same_points, 1e4 * batch(PAIRS)):
        value, gradient = value_and_gradient(lambda y: compute(y, None), x)
        assert value.isfinite()
        assert gradient.isfinite().all()
    assert float(build_regularization([SOSR()], PAIRS)(same_views, None)) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_bfloat16_gives_the_terms_of_float32_on_the_same_numbers(dtype: torch.dtype) -> None:
    compute, x = build_regularization([SOSR(neighbors=2), GOR()], PAIRS), batch(PAIRS, dtype=dtype)
    assert torch.equal(compute(x, None), compute(x.float(), None))


def test_distillation_compares_cosines_of_any_dimension() -> None:
    student, teacher = batch(PAIRS), torch.randn(2, 6, 9, dtype=torch.float64)
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        for i in range(6):
            for j in range(6):
                mine = s[i] @ s[j] / s[i].norm() / s[j].norm()
                other = t[i] @ t[j] / t[i].norm() / t[j].norm()
                total += float((mine - other) ** 2) / 72
    assert float(similarity_difference(student, teacher)) == pytest.approx(total)
    assert float(similarity_difference(student, 7 * student)) == pytest.approx(0, abs=1e-12)
