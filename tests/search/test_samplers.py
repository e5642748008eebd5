"""TPE on a part of the trials: Optuna's draws in a short search, a bounded model in a long one."""

import random
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpsearch.search.samplers import (
    BEST_TRIALS_KEPT,
    MAX_TRIALS_FITTED,
    SubsetTPESampler,
    select_trials,
)

Make = Callable[[int], BaseSampler]


def suggest(trial: optuna.Trial) -> float:
    """Conditional; the best is where the sampler must find a branch, a rate and a batch."""
    x = trial.suggest_float("lr", 1e-4, 1, log=True)
    if trial.suggest_categorical("kind", ["a", "b", "c"]) == "a":
        return x + trial.suggest_int("k", 2, 8, step=2)
    if trial.suggest_categorical("norm", [False, True]):
        return x + trial.suggest_float("margin", 0.0, 2.0)
    return x + 3


def tell(study: optuna.Study, trial: optuna.Trial, value: float, chance: random.Random) -> None:
    end = chance.random()
    for step in range(1, 4):
        trial.report(value + 1 / step, step * 100)
    trial.set_constraint("collapsed", 1.0 if end > 0.85 else 0.0)
    if end < 0.4:
        study.tell(trial, state=TrialState.PRUNED)
    elif end < 0.5:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, 10.0 if end > 0.85 else value)


def stock(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=6, constant_liar=False
        )


def draws(make: Make, *, trials: int, direction: Any = "minimize") -> list[dict[str, Any]]:
    """Parameters of a search of three at a time that end in another order than they began."""
    study, chance = optuna.create_study(direction=direction), random.Random(0)
    running, found = [], []
    for number in range(trials):
        study.sampler = make(number)
        trial = study.ask()
        value = suggest(trial)
        running.append((trial, value))
        found.append(trial.params)
        if len(running) == 3:
            ended, value = running.pop(chance.randrange(3))
            tell(study, ended, value, chance)
    return found


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_short_search_is_drawn_as_by_optuna(direction: str) -> None:
    ours = draws(lambda n: SubsetTPESampler(seed=n), trials=60, direction=direction)
    assert ours == draws(stock, trials=60, direction=direction)


def test_one_sampler_for_a_whole_search_draws_as_optunas() -> None:
    """The study is looked at again for each trial."""
    ours, theirs = SubsetTPESampler(seed=1), stock(1)
    assert draws(lambda n: ours, trials=30) == draws(lambda n: theirs, trials=30)


def test_several_objectives_are_drawn_as_by_optuna() -> None:
    def search(make: Make) -> list[dict[str, Any]]:
        study = optuna.create_study(directions=["minimize", "maximize"])
        for number in range(30):
            study.sampler = make(number)
            trial = study.ask()
            value = suggest(trial)
            study.tell(trial, [value, trial.params["lr"]])
        return [trial.params for trial in study.trials]

    assert search(lambda n: SubsetTPESampler(seed=n, max_trials=10)) == search(stock)


def test_a_long_search_shows_its_best_and_an_even_spread_of_the_others() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(125):
        study.add_trial(optuna.create_trial(value=float(number if number >= 100 else 0)))
    found = select_trials(study.get_trials(deepcopy=False), StudyDirection.MAXIMIZE, 35)
    others, best = list(range(0, 100, 11)), list(range(100, 125))
    assert [trial.number for trial in found] == others + best


def test_completed_trials_are_better_than_pruned_ones_and_those_than_infeasible_ones() -> None:
    study = optuna.create_study(direction="minimize")
    collapsed = optuna.create_trial(value=0.0, constraints={"collapsed": 1.0})
    for trial in (
        *[collapsed] * BEST_TRIALS_KEPT,
        *(
            optuna.create_trial(state=TrialState.PRUNED, intermediate_values={step: 0.0})
            for step in range(100, 100 + BEST_TRIALS_KEPT)
        ),
        optuna.create_trial(value=9.0),
    ):
        study.add_trial(trial)
    found = select_trials(
        study.get_trials(deepcopy=False), StudyDirection.MINIMIZE, BEST_TRIALS_KEPT
    )
    last = 2 * BEST_TRIALS_KEPT
    assert [trial.number for trial in found] == list(range(BEST_TRIALS_KEPT + 1, last + 1))


def test_the_model_of_a_long_search_has_a_bounded_number_of_trials() -> None:
    study = optuna.create_study()
    for number in range(MAX_TRIALS_FITTED + 50):
        study.add_trial(
            optuna.create_trial(
                value=number / 7 % 1,
                params={"x": number / 7 % 1},
                distributions={"x": optuna.distributions.FloatDistribution(0, 1)},
            )
        )
    study.sampler = sampler = SubsetTPESampler(seed=0)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    shown = sampler.subset(study, study.trials[trial.number])
    assert len(shown.trials) == MAX_TRIALS_FITTED
