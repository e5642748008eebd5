"""Progressive halving: when the highest rung rises, who trains on, and what counts as noise."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from hpsearch.search.halving import SuccessiveHalving, crossing_noise
from hpsearch.search.pruners import ASHA, PASHA, PrunerWithHistory, build_pruner

StudyDirectionName = Literal["maximize", "minimize"]
BUDGET = 2_700
RUNGS = (100, 300, 900)


def pruner(*, maximize: bool = True) -> PrunerWithHistory:
    rule = build_pruner(PASHA(), grace_period=100, budget=BUDGET)
    direction = "maximize" if maximize else "minimize"
    return PrunerWithHistory(rule, direction=direction, name="s")


def train(
    pruner: PrunerWithHistory, number: int, values: Mapping[int, float], *, sign: int = 1
) -> int:
    """Report until the trial is pruned; return the patches that it has seen then."""
    for seen, value in values.items():
        if pruner.should_prune(number, seen=seen, value=sign * value):
            pruner.finish(number, completed=False)
            return seen
    return BUDGET


def curve(*values: float) -> dict[int, float]:
    return dict(zip(RUNGS, values, strict=False))


@pytest.mark.parametrize("sign", [1, -1])
def test_while_the_order_holds_only_a_new_best_trains_beyond_the_second_rung(sign: int) -> None:
    rule = pruner(maximize=sign == 1)
    finals = [0.5, 0.6, 0.59, 0.7, 0.69]
    ends = [train(rule, n, curve(x, x, x), sign=sign) for n, x in enumerate(finals)]
    assert ends == [BUDGET, BUDGET, 300, BUDGET, 300]


def test_the_highest_rung_rises_when_the_best_change_places() -> None:
    settled = pruner()
    train(settled, 0, curve(0.5, 0.5, 0.5))
    train(settled, 1, curve(0.6, 0.6, 0.5))
    assert train(settled, 2, curve(0.595, 0.595, 0.6)) == 300, "the second best ends there"
    unsettled = pruner()
    train(unsettled, 0, curve(0.5, 0.9, 0.5))
    train(unsettled, 1, curve(0.6, 0.3, 0.5))  # the order of both is another one now
    assert train(unsettled, 2, curve(0.61, 0.895, 0.6)) == BUDGET, "it trains on, as in ASHA"
    assert train(unsettled, 3, curve(0.61, 0.899, 0.4)) == 900, "and is compared there"


def test_places_within_the_noise_are_no_change() -> None:
    """Two curves that cross twice say how much a distance means."""
    rule = pruner()
    noisy = [{100: 0.5, 150: 0.52, 200: 0.5, 300: 0.52}, {100: 0.51, 150: 0.51, 200: 0.51}]
    train(rule, 0, noisy[0])
    train(rule, 1, noisy[1] | {300: 0.519})
    assert train(rule, 2, curve(0.6, 0.5195, 0.6)) == 300


def test_noise_is_the_distance_of_curves_that_cross_twice() -> None:
    assert crossing_noise([[0, 1, 0], [0.5, 0.5, 0.25]]) == 0.25
    assert crossing_noise([[0, 1], [0.5, 0.5]]) == 0, "one crossing is a better trial"
    assert crossing_noise([[1, 1, 1]]) == 0


reports = st.lists(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9, 1.0]), min_size=3, max_size=3),
    min_size=1,
    max_size=12,
)


@given(reports)
@settings(max_examples=60, deadline=None)
def test_never_trains_a_trial_longer_than_asha_and_always_the_best(
    finals: Sequence[Sequence[float]],
) -> None:
    rule = pruner()
    asha = PrunerWithHistory(
        build_pruner(ASHA(), grace_period=100, budget=BUDGET), direction="maximize", name="s"
    )
    best = -np.inf
    for number, values in enumerate(finals):
        end = train(rule, number, curve(*values))
        for seen in [rung for rung in RUNGS if rung <= end]:
            stop = asha.should_prune(number, seen=seen, value=curve(*values)[seen])
            assert not stop or end == seen
        if number == 0:
            assert end == BUDGET
        best = max(best, values[0])


def test_is_a_setting_of_a_search() -> None:
    assert PASHA(grace_period=6_000).kind == "pasha"
    with pytest.raises(ValueError, match="reduction_factor"):
        PASHA(reduction_factor=1)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.floats(0, 1)), max_size=60),
    st.sampled_from(["maximize", "minimize"]),
)
@settings(max_examples=60, deadline=None)
def test_values_at_a_rung_are_those_of_all_trials_and_ended_ones_are_read_once(
    steps: list[tuple[int, bool, float]], direction: StudyDirectionName
) -> None:
    study = optuna.create_study(direction=direction)
    sign = 1 if direction == "maximize" else -1
    rule = SuccessiveHalving((2.0, 4.0), 2.0)
    trials, seen, ended = [study.ask() for _ in range(7)], [0] * 7, set[int]()
    for number, ends, value in steps:
        if number in ended:
            continue
        seen[number] += 1
        trials[number].report(value, seen[number])
        if ends:
            ended.add(number)
            study.tell(trials[number], state=TrialState.PRUNED)
        for rung, (low, high) in enumerate([(2, 4), (4, 99)]):
            expected = {}
            for trial in study.trials:
                reached = [at for at in trial.intermediate_values if low <= at < high]
                if reached:
                    expected[trial.number] = sign * trial.intermediate_values[min(reached)]
            found = rule.values_at(study, rung)
            assert list(found.items()) == list(expected.items())
    if ended:
        looked = list[int]()
        step_at = rule.step_at
        rule.step_at = lambda trial, rung: looked.append(trial.number) or step_at(trial, rung)
        rule.values_at(study, 0)
        assert not ended & set(looked), "a trial that has ended was read before"
