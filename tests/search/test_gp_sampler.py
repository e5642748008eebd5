"""The Gaussian process: its formulas, what it reads of a study, and that what it draws is good."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpsearch.search.freeze_thaw import (
    NOISE,
    Reports,
    covariance,
    predict_ends,
    similarity,
    standardize,
)
from hpsearch.search.gp_sampler import (
    GPSampler,
    last_value,
    point_of,
    read_reports,
    trials_to_fit,
)
from hpsearch.search.samplers import GP, build_sampler
from hpsearch.search.space_points import Point, draw_point

MAXIMIZE = StudyDirection.MAXIMIZE


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


def process(number: int, *, seed: int = 0) -> optuna.samplers.BaseSampler:
    settings = GP(startup_trials=6)
    search = SimpleNamespace(sampler=settings, seed=seed, suggest=suggest, budget=300)
    return build_sampler(search, point=number)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_search_with_conditions_finds_the_branch_and_its_values(direction: str) -> None:
    found = searched(process, trials=45, direction=direction)
    late = [trial.params for trial in found.trials[25:]]
    assert sum(params["kind"] == "b" for params in late) > 13, "a third of random ones would be"
    best = max(suggest(optuna.trial.FixedTrial(params)) for params in late)
    assert best > 2.3


def test_each_point_has_the_names_of_its_branch_and_values_in_their_ranges() -> None:
    for trial in searched(process, trials=25).trials:
        last = "depth" if trial.params["kind"] == "b" else "idle"
        assert list(trial.params) == ["rate", "kind", last]
        assert 1e-4 <= trial.params["rate"] <= 1
        assert trial.params[last] in range(1, 10) if last == "depth" else trial.params[last] <= 1


def test_draws_depend_on_study_seed_and_point_alone() -> None:
    first, again = (searched(process, trials=20) for _ in range(2))
    assert [trial.params for trial in first.trials] == [trial.params for trial in again.trials]
    other = searched(lambda number: process(number, seed=1), trials=20)
    assert [trial.params for trial in first.trials] != [trial.params for trial in other.trials]


def test_points_are_random_until_enough_trials_have_a_report() -> None:
    """The generator alone decides, as for trials that have not said anything."""
    silent = optuna.create_study(direction="maximize")
    for _ in range(9):
        suggest(silent.ask())
    silent.sampler = process(9)
    drawn = silent.ask()
    suggest(drawn)
    empty = optuna.create_study(direction="maximize", sampler=process(9))
    first = empty.ask()
    suggest(first)
    assert drawn.params == first.params


def test_given_values_are_kept_and_the_others_are_drawn() -> None:
    study = searched(process, trials=15)
    study.sampler = process(15)
    study.enqueue_trial({"kind": "c", "rate": 0.5})
    trial = study.ask()
    suggest(trial)
    assert trial.params["kind"] == "c"
    assert trial.params["rate"] == 0.5
    assert 0 <= trial.params["idle"] <= 1


def reported(*values: float, state: TrialState = TrialState.PRUNED, **more: Any) -> FrozenTrial:
    """A trial with a report each 100 patches."""
    final = values[-1] if state == TrialState.COMPLETE else None
    curve = {100 * (n + 1): value for n, value in enumerate(values)}
    return create_trial(state=state, value=final, intermediate_values=curve, **more)


def test_reports_of_every_trial_are_read_whatever_its_state() -> None:
    trials = [
        reported(0.2),
        reported(0.5, 0.9, 0.95, 0.97, 0.98, 0.99, state=TrialState.COMPLETE),
        reported(0.4, 0.3, state=TrialState.RUNNING),
    ]
    found = read_reports(trials, StudyDirection.MAXIMIZE, 600)
    assert list(found.trial) == [0, 1, 1, 1, 1, 2, 2]
    assert found.time == pytest.approx(np.array([1, 1, 2, 3, 6, 1, 2]) / 6)
    order = [0, 6, 5, 1, 2, 3, 4]
    assert list(np.argsort(found.value, kind="stable")) == order
    assert found.value.mean() == pytest.approx(0, abs=1e-9)
    assert found.value.std() == pytest.approx(1)
    worst_first = read_reports(trials, StudyDirection.MINIMIZE, 600).value
    assert np.argmax(worst_first) == 0
    assert last_value(create_trial(state=TrialState.RUNNING)) is None


def test_a_failed_trial_counts_as_the_lowest_whatever_its_value() -> None:
    failed = reported(0.5, 0.99, constraints={"collapsed": 1.0})
    for direction in (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE):
        values = read_reports([reported(0.5), failed, reported(0.1)], direction, None).value
        assert values[2] == values.min(), "the last report, not the one before it"


@given(st.lists(st.floats(-1e300, 1e300) | st.just(-np.inf) | st.just(np.nan), min_size=1))
@settings(max_examples=80, deadline=None)
def test_standardized_values_are_finite_and_in_order(values: list[float]) -> None:
    scores = standardize(np.array(values))
    assert np.isfinite(scores).all()
    assert abs(scores.mean()) < 1e-6
    known = [(value, one) for value, one in zip(values, scores, strict=True) if np.isfinite(value)]
    for (first, one), (second, other) in pairwise(sorted(known)):
        assert first == second or one <= other


def points_drawn(count: int) -> list[Point]:
    drawn = (draw_point(suggest, np.random.default_rng(n)) for n in range(count))
    return [point for point in drawn if point is not None]


def test_the_process_agrees_with_the_formula_of_conditional_normals() -> None:
    """Against numpy's inverse, and with the report of a trial's own that is the end itself."""
    points = points_drawn(4)
    reports = Reports(np.array([0, 0, 1]), np.array([0.1, 1.0, 0.3]), np.array([0.2, 1.5, -1.0]))
    mean, deviation = predict_ends(points[:2], reports, own=True)
    like = similarity([*points[:2], *points[:2]])
    trial, time, ends = reports.trial, reports.time, np.ones(2)
    same = trial[:, None] == trial[None]
    known = covariance(like[np.ix_(trial, trial)], time, time, same) + NOISE**2 * np.eye(3)
    cross = covariance(like[np.ix_([2, 3], trial)], ends, time, np.arange(2)[:, None] == trial)
    own = covariance(like[np.ix_([2, 3], [2, 3])], ends, ends, np.eye(2, dtype=bool))
    assert mean == pytest.approx(cross @ np.linalg.inv(known) @ reports.value)
    left = np.diag(own - cross @ np.linalg.inv(known) @ cross.T)
    assert deviation == pytest.approx(np.sqrt(left))
    assert abs(mean[0] - 1.5) < 0.2 < abs(mean[1] + 1.0), "an end says more than a beginning"
    assert deviation[0] < deviation[1]


def test_a_running_trial_makes_points_like_it_less_uncertain_and_no_better() -> None:
    points = points_drawn(12)
    reports = Reports(np.arange(8), np.full(8, 0.5), np.linspace(-1, 1, 8))
    alone = predict_ends(points[:8], reports, points[8:])
    beside = predict_ends(points[:8], reports, points[8:], points[8:9])
    assert beside[0] == pytest.approx(alone[0], abs=0.02)
    assert (beside[1] <= alone[1] + 1e-9).all()
    assert beside[1][0] < 0.9 * alone[1][0]


def test_the_kernel_is_one_for_a_point_itself_and_falls_with_the_distance() -> None:
    kinds = {"rate": FloatDistribution(0, 1), "kind": CategoricalDistribution(["a", "b"])}
    points = [
        Point({"rate": rate, "kind": kind}, kinds)
        for rate, kind in ((0.0, "a"), (0.1, "a"), (0.9, "a"), (0.0, "b"))
    ]
    like = similarity(points)
    assert np.diag(like) == pytest.approx(np.ones(4))
    assert like[0, 1] > like[0, 2] > 0
    assert like[0, 3] < 1
    assert (np.linalg.eigvalsh(like) > -1e-9).all()


def test_a_long_study_is_fitted_to_its_best_and_an_even_spread_of_the_others() -> None:
    trials = [reported(value) for value in np.arange(100.0)[::-1]]
    kept = [trial.intermediate_values[100] for trial in trials_to_fit(trials, MAXIMIZE, 20)]
    assert len(set(kept)) == 20
    assert set(range(90, 100)) <= set(kept), "the best ten"
    assert kept[-1] == 0
    assert trials_to_fit(trials[:5], MAXIMIZE, 20) == trials[:5]


def test_one_that_forgets_its_space_is_a_random_search() -> None:
    """A space that refuses every combination alone leaves it to the trial, which reports why."""

    def refusing(trial: Any) -> None:
        raise ValueError("no combination fits")

    study = optuna.create_study(sampler=GPSampler(refusing, seed=0))
    assert 0 <= study.ask().suggest_float("x", 0, 1) <= 1


def test_a_trial_is_read_as_a_point() -> None:
    trial = searched(process, trials=4).trials[0]
    assert point_of(trial).params == trial.params
