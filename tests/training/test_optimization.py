"""Learning rates: literal values, and what holds for every schedule."""

import copy
from typing import Any

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
    LinearDecay,
    OneCycle,
    Optimizer,
    Schedule,
    StepDecay,
)
from hpsearch.training.optimization import build_optimizer, lr_factor, set_lr

SCHEDULES = [Constant(), StepDecay(), Cosine(final_lr_ratio=0.1), Exponential(), LinearDecay()]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), [1, 1, 1, 1, 1]),
        (Constant(warmup=0.5), [0, 0.5, 1, 1, 1]),
        (StepDecay(milestones=(0.5, 0.75), gamma=0.1), [1, 1, 0.1, 0.01, 0.01]),
        (Cosine(), [1, 0.853553, 0.5, 0.146447, 0]),
        (Cosine(final_lr_ratio=0.5, warmup=0.25), [0, 0.926777, 0.75, 0.573223, 0.5]),
        (Exponential(final_lr_ratio=0.0001), [1, 0.1, 0.01, 0.001, 0.0001]),
        (LinearDecay(), [1, 0.75, 0.5, 0.25, 0]),
        (LinearDecay(final_lr_ratio=0.2, warmup=0.5), [0, 0.4, 0.6, 0.4, 0.2]),
        (OneCycle(rise=0.25, final_lr_ratio=0), [0.04, 1, 0.75, 0.25, 0]),
        (OneCycle(rise=0.5, initial_lr_ratio=0.2, final_lr_ratio=0.1), [0.2, 0.6, 1, 0.55, 0.1]),
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


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (SGD(lr=0.1, momentum=0.9, nesterov=True), torch.optim.SGD),
        (Adam(lr=0.1), torch.optim.Adam),
        (AdamW(lr=0.1, weight_decay=0.1), torch.optim.AdamW),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_steps_and_states_are_torchs_own_to_the_bit(
    config: Optimizer, kind: type[torch.optim.Optimizer]
) -> None:
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, 7)) for _ in range(3)]
    mine = build_optimizer(config, [weights[0]])
    theirs: Any = kind([weights[1]], fused=True, **config.model_dump(exclude={"kind"}))
    restored = build_optimizer(config, [weights[2]])
    optimizers = [mine, theirs]
    for step in range(8):
        if step == 4:
            weights[2].data.copy_(weights[1].detach())
            restored.load_state_dict(copy.deepcopy(theirs.state_dict()))
            optimizers.append(restored)
        for optimizer, weight in zip(optimizers, weights, strict=False):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
        assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], weights[1])
    assert mine.state_dict()["param_groups"] == theirs.state_dict()["param_groups"]


def test_adamw_decays_by_the_rate_and_not_by_the_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(AdamW(lr=0.1, weight_decay=0.5), [weight])
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert float(weight.detach()) == pytest.approx(1 - 0.1 * 0.5)


def test_a_cycle_is_torchs_one_cycle() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=101, pct_start=0.31, div_factor=25, final_div_factor=1e4
    )  # its steps are counted from 0 to 100, and its highest rate is that of step 0.31 · 101 − 1
    mine = OneCycle(rise=(0.31 * 101 - 1) / 100)
    for step in range(100):
        assert lr_factor(mine, seen=step, budget=100) == pytest.approx(
            theirs.get_last_lr()[0], abs=1e-6
        )
        optimizer.step()
        theirs.step()


def test_dampening_is_torchs() -> None:
    found = []
    for build in (
        lambda w: build_optimizer(SGD(lr=0.1, momentum=0.9, dampening=0.9), w),
        lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.9, dampening=0.9),
    ):
        weight = torch.nn.Parameter(torch.ones(1))
        optimizer = build([weight])
        for gradient in (1.0, -2.0, 3.0):
            weight.grad = torch.full((1,), gradient)
            optimizer.step()
        found.append(float(weight.detach()))
    assert found[0] == found[1]
