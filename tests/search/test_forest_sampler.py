"""The forest: what it reads of a study, and that what it draws is of the space and good."""

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

import hpsearch
from hpsearch.errors import OldSpellingWarning
from hpsearch.search import samplers
from hpsearch.search.forest_sampler import (
    Curve,
    ForestSampler,
    expected_gain,
    final_values,
    point_of,
    read_curve,
    rows_to_fit,
)
from hpsearch.search.samplers import Forest, build_sampler
from hpsearch.search.space_points import Point, draw_point


def suggest(trial: optuna.Trial) -> float:
    """Best with kind b and a rate of 0.01; kind a has a name that changes nothing."""
    rate = trial.suggest_float("rate", 1e-4, 1, log=True)
    value = -abs(np.log10(rate) + 2)
    if trial.suggest_categorical("kind", ["a", "b", "c"]) == "b":
        return value + 3 - abs(trial.suggest_int("depth", 1, 9) - 6) / 4
    return value + 0 * trial.suggest_float("idle", 0, 1)


def searched(
    sampler: Any, *, trials: int, direction: str = "maximize", at_once: int = 3
) -> optuna.Study:
    """A search whose trials grow by 1 in each of three reports; two of three are pruned."""
    study, sign = optuna.create_study(direction=direction), 1 if direction == "maximize" else -1
    running: list[tuple[optuna.Trial, float]] = []
    for number in range(trials):
        study.sampler = sampler(number)
        trial = study.ask()
        running.append((trial, suggest(trial)))
        if len(running) == at_once:
            ended, value = running.pop(0)
            for step in range(1, 4 if ended.number % 3 == 0 else 2):
                ended.report(sign * (value + step), step * 100)
            pruned = ended.number % 3 > 0
            state = TrialState.PRUNED if pruned else TrialState.COMPLETE
            study.tell(ended, None if pruned else sign * (value + 3), state=state)
    return study


def forest(number: int, *, seed: int = 0) -> optuna.samplers.BaseSampler:
    return build_sampler(Forest(startup_trials=6), seed=seed, point=number, suggest=suggest)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_search_with_conditions_finds_the_branch_and_its_values(direction: str) -> None:
    found = searched(forest, trials=45, direction=direction)
    late = [trial.params for trial in found.trials[25:]]
    assert sum(params["kind"] == "b" for params in late) > 13, "a third of random ones would be"
    best = max(suggest(optuna.trial.FixedTrial(params)) for params in late)
    assert best > 2.5


def test_each_point_has_the_names_of_its_branch_and_values_in_their_ranges() -> None:
    for trial in searched(forest, trials=25).trials:
        last = "depth" if trial.params["kind"] == "b" else "idle"
        assert list(trial.params) == ["rate", "kind", last]
        assert 1e-4 <= trial.params["rate"] <= 1
        assert trial.params[last] in range(1, 10) if last == "depth" else trial.params[last] <= 1


def test_draws_depend_on_study_seed_and_point_alone() -> None:
    first, again = (searched(forest, trials=20) for _ in range(2))
    assert [trial.params for trial in first.trials] == [trial.params for trial in again.trials]
    other = searched(lambda number: forest(number, seed=1), trials=20)
    assert [trial.params for trial in first.trials] != [trial.params for trial in other.trials]


def test_points_are_random_until_enough_trials_have_a_report() -> None:
    """The generator alone decides, as for trials that have not said anything."""
    silent = optuna.create_study(direction="maximize")
    for _ in range(9):
        suggest(silent.ask())
    silent.sampler = forest(9)
    drawn = silent.ask()
    suggest(drawn)
    empty = optuna.create_study(direction="maximize", sampler=forest(9))
    first = empty.ask()
    suggest(first)
    assert drawn.params == first.params


def test_given_values_are_kept_and_the_others_are_drawn() -> None:
    study = searched(forest, trials=15)
    study.sampler = forest(15)
    study.enqueue_trial({"kind": "c", "rate": 0.5})
    trial = study.ask()
    suggest(trial)
    assert trial.params["kind"] == "c"
    assert trial.params["rate"] == 0.5
    assert 0 <= trial.params["idle"] <= 1


def test_a_pruned_trial_counts_with_what_the_others_grew_from_there() -> None:
    completed = [Curve((x, x + 1, x + 3), is_final=True) for x in (0.0, 1.0, 2.0)]
    pruned = [Curve((0.5,), is_final=False), Curve((1.0, 2.5), is_final=False)]
    assert final_values([*completed, *pruned]) == pytest.approx([3, 4, 5, 3.5 + 0.125, 4.5])


def test_growth_may_depend_on_the_value() -> None:
    """High curves have no more to gain."""
    completed = [Curve((x, 1.0), is_final=True) for x in (0.0, 0.5, 1.0)]
    found = final_values([*completed, Curve((0.75,), is_final=False)])
    assert found[-1] == pytest.approx(1.0)


def test_a_failed_trial_is_as_bad_as_the_worst_and_teaches_no_growth() -> None:
    failed = Curve((0.9, -1e9), is_final=True, has_failed=True)
    sound = [Curve((x, x + 0.1), is_final=True) for x in (0.2, 0.4, 0.6)]
    found = final_values([failed, *sound, Curve((0.5,), is_final=False)])
    assert found == pytest.approx([0.3, 0.3, 0.5, 0.7, 0.6])
    assert final_values([failed]) == pytest.approx([0.0])


curves = st.lists(
    st.builds(
        lambda values, final, failed: Curve(tuple(values), final, failed),
        st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@given(curves)
@settings(max_examples=60, deadline=None)
def test_what_was_measured_to_the_end_is_never_changed(curves: list[Curve]) -> None:
    found = final_values(curves)
    assert np.isfinite(found).all()
    for value, curve in zip(found, curves, strict=True):
        if curve.is_final and not curve.has_failed:
            assert value == curve.values[-1]


def test_curves_are_read_in_the_order_of_steps_with_the_sign_of_the_objective() -> None:
    trial = create_trial(
        state=TrialState.COMPLETE, value=3.0, intermediate_values={300: 3.0, 100: 9.0, 200: 5.0}
    )
    assert read_curve(trial, StudyDirection.MINIMIZE) == Curve((-9.0, -5.0, -3.0), is_final=True)
    failed = create_trial(
        state=TrialState.PRUNED, intermediate_values={1: 0.5}, constraints={"collapsed": 1.0}
    )
    assert read_curve(failed, StudyDirection.MAXIMIZE) == Curve((0.5,), True, has_failed=True)


def test_a_running_trial_lowers_the_gain_of_points_like_it() -> None:
    rng = np.random.default_rng(0)
    points = [draw_point(suggest, rng) for _ in range(30)]
    known = [point for point in points if point is not None]
    values = np.array([suggest(optuna.trial.FixedTrial(dict(p.params))) for p in known])
    asked = [*known[:5], Point({**known[0].params, "rate": 0.9}, known[0].distributions)]
    alone = expected_gain(known, values, asked, seed=1)
    beside = expected_gain(known, values, asked, [known[2]], seed=1)
    assert (beside <= alone).all()
    assert beside[2] == 0 < alone[2], "no tree tells a point from itself"


def test_a_long_study_is_fitted_to_its_best_and_an_even_spread_of_the_others() -> None:
    values = np.arange(100.0)[::-1]
    kept = rows_to_fit(values, 20)
    assert len(set(kept)) == 20
    assert set(range(10)) <= set(kept), "the best ten"
    assert kept[-1] == 99
    assert list(rows_to_fit(values[:5], 20)) == [0, 1, 2, 3, 4]


def test_the_former_sampler_is_read_as_a_forest() -> None:
    for package in (samplers, hpsearch):
        with pytest.warns(OldSpellingWarning, match="GP is now Forest"):
            assert package.GP is Forest


def test_one_that_forgets_its_space_is_a_random_search() -> None:
    """A space that refuses every combination alone leaves it to the trial, which reports why."""

    def refusing(trial: Any) -> None:
        raise ValueError("no combination fits")

    study = optuna.create_study(sampler=ForestSampler(refusing, seed=0))
    assert 0 <= study.ask().suggest_float("x", 0, 1) <= 1


def test_a_trial_is_read_as_a_point() -> None:
    trial = searched(forest, trials=4).trials[0]
    assert point_of(trial).params == trial.params
