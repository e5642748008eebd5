"""TPE that does not grow dearer: Optuna's own draws in a short search, a part of a long one."""

import random
import warnings
from typing import Any

import optuna
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from hpsearch.search.tpe import FrugalTPE, Known

ALL = 10**6


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


def stock(seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed, multivariate=True, group=True, n_startup_trials=6, constant_liar=False
        )


def draws(make: Any, *, trials: int, direction: Any = "minimize") -> list[dict[str, Any]]:
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
def test_the_draws_are_those_of_optuna(direction: str) -> None:
    known = Known()
    ours = draws(
        lambda n: FrugalTPE(seed=n, known=known, n_startup_trials=6),
        trials=60,
        direction=direction,
    )
    assert ours == draws(stock, trials=60, direction=direction)


def test_the_draws_do_not_depend_on_what_was_read_before() -> None:
    """A search that goes on after a crash has read nothing."""
    known = Known(looked_at=40)
    remembered = draws(lambda n: FrugalTPE(seed=n, known=known, n_startup_trials=6), trials=70)
    forgetful = draws(
        lambda n: FrugalTPE(seed=n, known=Known(looked_at=40), n_startup_trials=6), trials=70
    )
    assert remembered == forgetful


def test_a_long_search_shows_its_best_and_an_even_part_of_the_others() -> None:
    study = optuna.create_study(direction="maximize")
    for number in range(100):
        study.add_trial(optuna.create_trial(value=float(number % 50)))
    trials, known = study.get_trials(deepcopy=False), Known(looked_at=20)
    known.note(study, trials)
    good, others = known.split(study, trials)
    assert [trial.number for trial in good] == [45, 46, 47, 48, 49, 95, 96, 97, 98, 99]
    assert [trial.number for trial in others] == [0, 10, 20, 30, 40, 54, 64, 74, 84, 94]


def test_several_objectives_are_drawn_as_by_optuna() -> None:
    def search(make: Any) -> list[dict[str, Any]]:
        study = optuna.create_study(directions=["minimize", "maximize"])
        for number in range(30):
            study.sampler = make(number)
            trial = study.ask()
            value = suggest(trial)
            study.tell(trial, [value, trial.params["lr"]])
        return [trial.params for trial in study.trials]

    known = Known()
    ours = search(lambda n: FrugalTPE(seed=n, known=known, n_startup_trials=6))
    assert ours == search(stock)
