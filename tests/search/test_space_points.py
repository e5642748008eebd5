"""Points of a space: as Optuna would draw them, near each other, and as numbers."""

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpsearch.search.space_points import (
    ABSENT,
    Point,
    draw_neighbor,
    draw_point,
    encode,
    from_unit,
    to_unit,
)


def suggest(trial: optuna.Trial) -> None:
    trial.suggest_float("rate", 1e-3, 1, log=True)
    trial.suggest_int("size", 2, 20, step=3)
    if trial.suggest_categorical("deep", [False, True]):
        trial.suggest_int("layers", 1, 64, log=True)


def drawn(seed: int, given: dict[str, Any] | None = None) -> Point:
    point = draw_point(suggest, np.random.default_rng(seed), given)
    assert point is not None
    return point


numbers = st.one_of(
    st.builds(
        lambda low, width, log: FloatDistribution(low, low + width, log=log),
        st.floats(1e-3, 1e3), st.floats(0, 1e3), st.booleans(),
    ),
    st.builds(
        lambda low, width, step: IntDistribution(low, low + width * step, step=step),
        st.integers(-50, 50), st.integers(0, 40), st.integers(1, 7),
    ),
    st.builds(
        lambda low, width: IntDistribution(low, low + width, log=True),
        st.integers(1, 50), st.integers(0, 500),
    ),
)  # fmt: skip


@given(numbers, st.floats(0, 1, exclude_max=True))
@settings(max_examples=150, deadline=None)
def test_every_share_is_a_value_of_the_distribution(distribution: Any, share: float) -> None:
    value = from_unit(share, distribution)
    assert isinstance(value, int if isinstance(distribution, IntDistribution) else float)
    assert distribution.low <= value <= distribution.high
    if distribution.step:
        assert (value - distribution.low) % distribution.step == 0
    assert 0 <= to_unit(value, distribution) <= 1


def test_every_value_of_a_range_is_as_probable() -> None:
    shares = (np.arange(6_000) + 0.5) / 6_000
    steps = [from_unit(share, IntDistribution(2, 17, step=3)) for share in shares]
    assert {steps.count(value) for value in range(2, 18, 3)} == {1_000}
    choices = [from_unit(share, CategoricalDistribution("abc")) for share in shares]
    assert {choices.count(value) for value in "abc"} == {2_000}


def test_a_point_has_the_names_and_distributions_that_optuna_gives_a_trial() -> None:
    for seed in range(20):
        point = drawn(seed)
        trial = optuna.trial.FixedTrial(dict(point.params))
        suggest(trial)  # type: ignore[arg-type]
        assert trial.params == point.params
        assert trial.distributions == point.distributions


def test_given_values_are_kept_where_the_space_allows_them() -> None:
    point = drawn(0, {"rate": 0.5, "size": 99, "deep": True, "unknown": 1})
    assert point.params["rate"] == 0.5
    assert point.params["deep"] is True
    assert point.params["size"] in range(2, 21, 3)
    assert "unknown" not in point.params


def test_a_name_that_is_drawn_twice_has_one_value() -> None:
    seen = []

    def twice(trial: optuna.Trial) -> None:
        seen.extend(trial.suggest_float("x", 0, 1) for _ in range(2))

    draw_point(twice, np.random.default_rng(0))
    assert seen[0] == seen[1]


def test_a_combination_that_a_space_refuses_is_no_point() -> None:
    def refuses(trial: optuna.Trial) -> None:
        if trial.suggest_categorical("a", [1, 2]) == 2:
            raise ValueError("2 does not fit")

    found = [draw_point(refuses, np.random.default_rng(seed)) for seed in range(30)]
    assert {None if point is None else point.params["a"] for point in found} == {None, 1}


def test_neighbors_differ_in_few_values_and_are_of_the_space() -> None:
    rng, point = np.random.default_rng(0), drawn(1, {"deep": True})
    distances = []
    for _ in range(200):
        near = draw_neighbor(suggest, rng, point)
        assert near is not None
        optuna_trial = optuna.trial.FixedTrial(dict(near.params))
        suggest(optuna_trial)  # type: ignore[arg-type]
        assert optuna_trial.params == near.params
        distances.append(sum(near.params.get(n) != v for n, v in point.params.items()))
    assert 0.5 < np.mean(distances) < 2.5, "two of four names on average, some to the same value"


def test_numbers_are_scaled_choices_have_columns_and_what_is_absent_is_split_off() -> None:
    rate, deep = FloatDistribution(0.01, 1, log=True), CategoricalDistribution([False, True, 1])
    layers = IntDistribution(0, 10)
    rows = encode(
        [
            Point({"rate": 0.1, "deep": True, "layers": 5}, {"rate": rate, "deep": deep,
                                                            "layers": layers}),
            Point({"rate": 1.0, "deep": False}, {"rate": rate, "deep": deep}),
            Point({"deep": 1}, {"deep": deep}),
        ]
    )  # fmt: skip
    assert rows == pytest.approx(
        np.array(
            [[0.5, 1, 0, 0, 0.5], [1.0, 0, 1, 0, ABSENT], [ABSENT, 0, 0, 1, ABSENT]]
        )
    )  # fmt: skip


def test_a_range_that_changes_is_scaled_to_all_of_them_together() -> None:
    points = [Point({"x": 1.0}, {"x": FloatDistribution(0, high)}) for high in (1, 4)]
    assert encode(points).ravel().tolist() == [0.25, 0.25]
    constant = Point({"x": 1.0}, {"x": FloatDistribution(1, 1)})
    assert encode([constant]).tolist() == [[0.5]]
