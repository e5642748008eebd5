"""The forest: what it reads of a study, and that what it draws is of the space and good."""

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

import hpsearch
from hpsearch.errors import OldSpellingWarning
from hpsearch.search import samplers
from hpsearch.search.forest_sampler import (
    ForestSampler,
    last_value,
    point_of,
    predict_scores,
    rank_scores,
    rows_to_fit,
)
from hpsearch.search.samplers import Forest, build_sampler
from hpsearch.search.space_points import draw_point


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
    """A search whose trials grow by 1 in each of three reports; the worse half is pruned."""
    study, sign = optuna.create_study(direction=direction), 1 if direction == "maximize" else -1
    running: list[tuple[optuna.Trial, float]] = []
    firsts: list[float] = []
    for number in range(trials):
        study.sampler = sampler(number)
        trial = study.ask()
        running.append((trial, suggest(trial)))
        if len(running) == at_once:
            ended, value = running.pop(0)
            pruned = bool(firsts) and value < np.median(firsts)
            firsts.append(value)
            for step in range(1, 2 if pruned else 4):
                ended.report(sign * (value + step), step * 100)
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
    assert best > 2.3


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


def ended(value: float, *, state: TrialState = TrialState.PRUNED, **more: Any) -> FrozenTrial:
    final = value if state == TrialState.COMPLETE else None
    return create_trial(state=state, value=final, intermediate_values={100: value}, **more)


def test_every_trial_is_ranked_by_its_last_value_whatever_its_state() -> None:
    trials = [
        ended(0.2),
        ended(0.9, state=TrialState.COMPLETE),
        ended(0.4, state=TrialState.RUNNING),
        create_trial(state=TrialState.PRUNED, intermediate_values={300: 0.6, 100: 0.95}),
    ]
    assert [last_value(trial) for trial in trials] == [0.2, 0.9, 0.4, 0.6]
    best_last = rank_scores(trials, StudyDirection.MAXIMIZE)
    assert list(np.argsort(best_last)) == [0, 2, 3, 1]
    assert rank_scores(trials, StudyDirection.MINIMIZE) == pytest.approx(-best_last)
    assert last_value(create_trial(state=TrialState.RUNNING)) is None


def test_a_failed_trial_ranks_below_all_others_whatever_its_value() -> None:
    failed = ended(0.99, constraints={"collapsed": 1.0})
    for direction in (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE):
        scores = rank_scores([ended(0.5), failed, ended(0.1)], direction)
        assert np.argmin(scores) == 1


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_scores_are_finite_symmetric_in_order_and_equal_where_values_are(
    values: list[float],
) -> None:
    scores = rank_scores([ended(value) for value in values], StudyDirection.MAXIMIZE)
    assert np.isfinite(scores).all()
    for first, one in zip(values, scores, strict=True):
        for second, other in zip(values, scores, strict=True):
            assert (first < second) == (one < other)
    if len(set(values)) == len(values):
        assert scores.sum() == pytest.approx(0, abs=1e-6)


def test_a_running_trial_lowers_the_score_of_points_like_it() -> None:
    rng = np.random.default_rng(0)
    points = [draw_point(suggest, rng) for _ in range(30)]
    known = [point for point in points if point is not None]
    values = [suggest(optuna.trial.FixedTrial(dict(point.params))) for point in known]
    scores = np.array(values) - np.mean(values)
    best = int(np.argmax(scores))
    alone = predict_scores(known, scores, known, seed=1)
    beside = predict_scores(known, scores, known, [known[best]], seed=1)
    assert (beside <= alone).all()
    assert beside[best] == 0 < alone[best], "no tree tells a point from itself"
    assert beside[np.argmin(alone)] == alone.min(), "and nothing bad becomes better"


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
