"""Grids of define-by-run spaces, against the tree written out by hand."""

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.errors import UserError
from hpsearch.search.grid import enumerate_grid, validate_point


def conditional(trial: optuna.Trial) -> None:
    if trial.suggest_categorical("loss", ["hard", "soft"]) == "hard":
        trial.suggest_float("margin", 0.1, 0.5, step=0.2)
    elif trial.suggest_categorical("deep", [False, True]):
        trial.suggest_int("layers", 2, 6, step=2)


def test_every_combination_of_a_conditional_space_comes_once() -> None:
    assert enumerate_grid(conditional) == [
        {"loss": "hard", "margin": 0.1},
        {"loss": "hard", "margin": 0.3},  # and not 0.30000000000000004
        {"loss": "hard", "margin": 0.5},
        {"loss": "soft", "deep": False},
        {"loss": "soft", "deep": True, "layers": 2},
        {"loss": "soft", "deep": True, "layers": 4},
        {"loss": "soft", "deep": True, "layers": 6},
    ]


def test_a_space_with_nothing_to_choose_has_one_combination() -> None:
    assert enumerate_grid(lambda trial: trial.suggest_float("lr", 0.1, 0.1)) == [{"lr": 0.1}]
    assert enumerate_grid(lambda trial: None) == [{}]


@given(st.lists(st.integers(1, 4), max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_product_has_as_many_combinations_as_its_sizes_multiply_to(sizes: list[int]) -> None:
    def suggest(trial: optuna.Trial) -> None:
        for i, size in enumerate(sizes):
            trial.suggest_int(f"x{i}", 1, size)

    found = enumerate_grid(suggest)
    expected = 1
    for size in sizes:
        expected *= size
    assert len(found) == expected == len({tuple(point.items()) for point in found})


@pytest.mark.parametrize(
    ("suggest", "code", "words"),
    [
        (lambda trial: trial.suggest_float("lr", 0.1, 1), "continuous-parameter", "'lr'"),
        (lambda trial: trial.suggest_int("n", 1, 10**12), "grid-too-large", "'n' .*30"),
        (lambda trial: trial.suggest_float("x", 0, 1, step=1e-9), "grid-too-large", "'x' .*30"),
        (
            lambda trial: [trial.suggest_int(name, 1, 6) for name in "ab"],
            "grid-too-large",
            " 30 combinations",
        ),
    ],
)
def test_what_is_no_grid_is_refused(suggest: Any, code: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        enumerate_grid(suggest, limit=30)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("point", "whole", "code", "words"),
    [
        ({"loss": "hart"}, False, "value-not-in-space", "loss='hart'.*'hard', 'soft'"),
        ({"loss": "hard", "margin": 0.7}, False, "value-not-in-space", "margin=0.7.* 0.1 to 0.5"),
        ({"loss": "hard", "deep": True}, False, "unknown-parameter", "'deep'.* loss"),
        ({"loss": "hard"}, True, "missing-parameter", "'margin'"),
    ],
)
def test_a_point_outside_the_space_is_refused(
    point: dict[str, Any], whole: bool, code: str, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        validate_point(conditional, point, complete=whole)
    assert caught.value.code == code


def test_a_point_inside_the_space_passes() -> None:
    validate_point(conditional, {"loss": "hard"}, complete=False)
    validate_point(conditional, {"loss": "soft", "deep": True, "layers": 4}, complete=True)


def test_a_check_of_a_point_logs_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)  # as in a process that did not search before
    try:
        validate_point(conditional, {"loss": "hard"}, complete=False)
        assert optuna.logging.get_verbosity() == optuna.logging.WARNING
    finally:
        optuna.logging.set_verbosity(verbosity)
    assert "A new study" not in capfd.readouterr().err
