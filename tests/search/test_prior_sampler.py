"""Beliefs about good values: drawn near, shed when wrong, and ranks of earlier searches."""

import math
import random

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.search.prior_sampler import (
    MAX_SHARE,
    EarlierSearch,
    Near,
    PriorSampler,
    UserPrior,
    best_first,
    check_prior,
    distance,
    with_beliefs,
)
from hpsearch.search.samplers import Fixed, Random
from hpsearch.search.search import Search
from hpsearch.search.trial_queue import TRANSFER_ATTR, WARM_START_ATTR

LR, WIDTH = FloatDistribution(1e-4, 1.0, log=True), IntDistribution(2, 10, step=2)
KIND = CategoricalDistribution(["a", "b", "c"])
CASES = [(LR, 1e-3), (WIDTH, 6), (KIND, "b"), (FloatDistribution(-1, 1), -1.0)]


@given(st.sampled_from(CASES), st.integers(0, 999), st.floats(0.01, 1.0))
@settings(deadline=None)
def test_a_draw_is_a_value_of_the_distribution(
    case: tuple[BaseDistribution, object], seed: int, spread: float
) -> None:
    distribution, value = case
    drawn = Near(value=value, spread=spread).draw(distribution, np.random.default_rng(seed))
    assert distribution._contains(distribution.to_internal_repr(drawn))


@pytest.mark.parametrize(("distribution", "value"), CASES)
def test_a_density_relative_to_the_uniform_one_has_the_mean_1(
    distribution: BaseDistribution, value: object
) -> None:
    near = Near(value=value, spread=0.2)
    if isinstance(distribution, CategoricalDistribution):
        values = list(distribution.choices)
    else:
        low, high, log = distribution.low, distribution.high, distribution.log  # type: ignore[attr-defined]
        shares = (np.arange(2_000) + 0.5) / 2_000
        values = list(low * (high / low) ** shares if log else low + (high - low) * shares)
    assert np.mean([near.density(distribution, v) for v in values]) == pytest.approx(1, abs=1e-3)
    assert near.density(distribution, value) > 1


def trial(lr: float, value: float, number: int = 0, **more: object) -> FrozenTrial:
    found = create_trial(params={"lr": lr}, distributions={"lr": LR}, value=value, **more)  # type: ignore[arg-type]
    found.number = number
    return found


@given(st.lists(st.floats(1e-4, 1.0), min_size=4, max_size=12), st.floats(1e-4, 1.0))
@settings(deadline=None)
def test_the_share_of_a_prior_stays_in_its_bounds(rates: list[float], value: float) -> None:
    ended = [trial(lr, 0.0) for lr in rates]
    share = UserPrior({"lr": Near(value=value)}).share(ended[:3], ended)
    assert 0 <= share <= MAX_SHARE


def test_a_prior_is_shed_where_the_best_trials_contradict_it() -> None:
    good, bad = ([trial(lr, 0.9 - i / 100) for i in range(8)] for lr in (1e-3, 0.9))
    prior = UserPrior({"lr": Near(value=1e-3, spread=0.1)})
    assert prior.share([], []) == MAX_SHARE
    assert prior.share(good[:2], good) > 0.35
    assert prior.share(bad[:2], bad) < 0.01


def ranked(pairs: list[tuple[float, float]]) -> EarlierSearch:
    attrs = lambda rank: {WARM_START_ATTR: "e/0", TRANSFER_ATTR: rank}  # noqa: E731
    return EarlierSearch(
        [
            create_trial(
                state=TrialState.FAIL, params={"lr": lr}, distributions={"lr": LR},
                user_attrs=attrs(rank),
            )
            for lr, rank in pairs
        ]
    )  # fmt: skip


def test_an_earlier_search_counts_as_far_as_ranks_agree() -> None:
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    earlier = ranked([(lr, rank / 4) for rank, lr in enumerate(rates)])
    same = [trial(lr, lr) for lr in reversed(rates)]  # best first
    assert earlier.share(same[:1], same) == pytest.approx(MAX_SHARE)
    assert earlier.share(same[-1:], same[::-1]) == 0
    assert earlier.share([], same[:2]) == MAX_SHARE, "too few to compare"
    assert earlier.priors(np.random.default_rng(0))["lr"].value == 1.0, "near the best one"


@given(st.floats(1e-4, 1), st.floats(1e-4, 1))
def test_distances_are_symmetric_and_within_0_and_1(one: float, other: float) -> None:
    a, b = trial(one, 0), trial(other, 0)
    assert distance(a, a) == 0
    assert 0 <= distance(a, b) == distance(b, a) <= 1


def run(prior: dict[str, Near], *, trials: int, best: float) -> list[float]:
    study = optuna.create_study(direction="minimize")
    for number in range(trials):
        study.sampler = with_beliefs(
            RandomSampler(seed=number), study, prior=prior, seed=(3, number)
        )
        asked = study.ask()
        lr = asked.suggest_float("lr", 1e-4, 1.0, log=True)
        study.tell(asked, abs(math.log(lr / best)))
    return [t.params["lr"] for t in study.trials]


def test_a_search_draws_near_a_right_prior_and_leaves_a_wrong_one() -> None:
    near = {"lr": Near(value=1e-3, spread=0.02)}
    inside = lambda lrs: sum(abs(math.log10(lr / 1e-3)) < 0.25 for lr in lrs)  # noqa: E731
    right, wrong = (run(near, trials=120, best=best)[40:] for best in (1e-3, 0.5))
    assert inside(right) > 30
    assert inside(wrong) < 20
    assert inside(run({}, trials=120, best=0.5)[40:]) < 20


def test_without_beliefs_the_sampler_is_the_other_one() -> None:
    inner, study = RandomSampler(seed=0), optuna.create_study()
    assert with_beliefs(inner, study, prior={}, seed=(0,)) is inner
    assert isinstance(
        with_beliefs(inner, study, prior={"lr": Near(value=1.0)}, seed=(0,)), PriorSampler
    )


def test_the_order_of_trials_knows_constraints_and_pruned_ones() -> None:
    chance = random.Random(0)
    pruned = [
        create_trial(state=TrialState.PRUNED, intermediate_values={step: value})
        for step, value in ((10, 0.9), (20, 0.1))
    ]
    ended = [trial(0.1, 0.5), trial(0.1, 0.6), trial(0.1, 0.9, constraints={"x": 1.0}), *pruned]
    mixed = chance.sample(ended, len(ended))
    found = best_first(mixed, optuna.study.StudyDirection.MAXIMIZE)
    assert found == [ended[1], ended[0], pruned[1], pruned[0], ended[2]]


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        ({"rate": 0.1}, "'rate', which the space does not draw; it draws kind, lr"),
        ({"lr": 7.0}, "'lr' is 7.0, which the space cannot draw"),
        ({"lr": "high"}, "'high'"),
        ({"kind": "d"}, "'kind' is 'd'"),
    ],
)
def test_a_prior_that_does_not_go_with_the_space_is_refused(prior: dict, words: str) -> None:
    near = {name: Near(value=value) for name, value in prior.items()}
    assert words in check_prior(near, {"lr": LR, "kind": KIND})


def space(**more: object) -> Search:
    def suggest(asked: optuna.Trial) -> TrialConfig:
        asked.suggest_float("lr", 0.01, 1)
        return TrialConfig(patches=100)

    values: dict = {"sampler": Random(), "trials": 4, **more}
    return Search(
        suggest=suggest, budget=100, report_every=10, baseline=TrialConfig(patches=100), **values
    )


def test_a_search_takes_plain_values_and_refuses_what_it_cannot_draw() -> None:
    one = space(prior={"lr": 0.1})
    assert one.prior["lr"] == Near(value=0.1)
    one.validate_space()
    for wrong in (
        {"prior": {"rate": 0.1}},
        {"prior": {"lr": 0.1}, "sampler": Fixed(points=({"lr": 0.1},))},
    ):
        with pytest.raises(UserError) as caught:
            space(**wrong).validate_space()
        assert caught.value.code == "invalid-prior"
