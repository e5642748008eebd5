"""Learning rates: literal values, and what holds for every schedule."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Exponential,
    Optimizer,
    Schedule,
    StepDecay,
)
from hpsearch.training.optimization import build_optimizer, lr_factor, set_lr

SCHEDULES = [Constant(), StepDecay(), Cosine(final_lr_ratio=0.1), Exponential()]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), [1, 1, 1, 1, 1]),
        (Constant(warmup=0.5), [0, 0.5, 1, 1, 1]),
        (StepDecay(milestones=(0.5, 0.75), gamma=0.1), [1, 1, 0.1, 0.01, 0.01]),
        (Cosine(), [1, 0.853553, 0.5, 0.146447, 0]),
        (Cosine(final_lr_ratio=0.5, warmup=0.25), [0, 0.926777, 0.75, 0.573223, 0.5]),
        (Exponential(final_lr_ratio=0.0001), [1, 0.1, 0.01, 0.001, 0.0001]),
    ],
)
def test_factors_at_quarters_of_the_budget(schedule: Schedule, expected: list[float]) -> None:
    found = [lr_factor(schedule, seen=seen, budget=400) for seen in (0, 100, 200, 300, 400)]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(warmup=st.floats(0, 0.5), budget=st.integers(10, 10**9), share=st.floats(0, 1))
def test_a_rate_rises_in_warm_up_only(
    schedule: Schedule, warmup: float, budget: int, share: float
) -> None:
    warmed = schedule.model_copy(update={"warmup": warmup})
    seen = int(share * budget)
    now, later = (lr_factor(warmed, seen=s, budget=budget) for s in (seen, min(budget, seen + 1)))
    assert 0 <= now <= 1
    if seen >= warmup * budget:
        assert later <= now


@pytest.mark.parametrize("config", [SGD(lr=0.5), Adam(lr=0.5), AdamW(lr=0.5)], ids=lambda c: c.kind)
def test_a_rate_of_zero_moves_nothing(config: Optimizer) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = build_optimizer(config, [weight])
    for rate, moved in ((0.0, False), (0.5, True)):
        set_lr(optimizer, rate)
        weight.grad = torch.ones(3)
        optimizer.step()
        assert bool((weight != 1).all()) == moved


def test_adamw_decays_by_the_rate_and_not_by_the_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(AdamW(lr=0.1, weight_decay=0.5), [weight])
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert float(weight.detach()) == pytest.approx(1 - 0.1 * 0.5)
