"""A mirrored study: what is written is in the storage, and nobody is missed."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.search.mirror import mirrored

SAMPLERS = {
    "tpe": lambda: optuna.samplers.TPESampler(seed=1, n_startup_trials=3),
    "random": lambda: optuna.samplers.RandomSampler(seed=1),
}


@pytest.fixture(params=["sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.storages.BaseStorage:
    if request.param == "sqlite":
        return optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    file = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    return optuna.storages.JournalStorage(file)


def study_in(storage: optuna.storages.BaseStorage, sampler: str = "random") -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=storage, study_name="s", sampler=SAMPLERS[sampler](), load_if_exists=True
    )


def work(study: optuna.Study, trials: int) -> None:
    """Every kind of ending, two at a time."""
    study.enqueue_trial({"x": 0.5}, user_attrs={"who": "us"})
    running: list[optuna.Trial] = []
    for number in range(trials):
        trial = study.ask()
        trial.set_user_attr("number", number)
        x, kind = trial.suggest_float("x", 0, 1), trial.suggest_categorical("k", ["a", "b"])
        trial.report(x, 1)
        running.append(trial)
        if len(running) == 2:
            end(study, running.pop(0), x, kind, number)


def end(study: optuna.Study, trial: optuna.Trial, x: float, kind: str, number: int) -> None:
    if number % 4 == 3:
        study.tell(trial, state=TrialState.FAIL)
    elif kind == "a":
        study.tell(trial, state=TrialState.PRUNED)
    else:
        trial.set_constraint("c", x - 0.5)
        study.tell(trial, x)


def facts(study: optuna.Study) -> list[tuple]:
    return [
        (t.number, t.state, t.params, t.values, t.user_attrs, t.intermediate_values, t.constraints)
        for t in study.get_trials(deepcopy=False)
    ]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_storage_holds_what_a_plain_study_would(
    storage: optuna.storages.BaseStorage, sampler: str
) -> None:
    study = mirrored(study_in(storage, sampler))
    work(study, 9)
    plain = optuna.create_study(sampler=SAMPLERS[sampler]())
    work(plain, 9)
    assert facts(study_in(storage)) == facts(study) == facts(plain)


def test_it_goes_on_where_a_study_stood(storage: optuna.storages.BaseStorage) -> None:
    work(study_in(storage), 4)
    study = mirrored(study_in(storage))
    assert facts(study) == facts(study_in(storage))
    running = next(t for t in study.get_trials() if t.state == TrialState.RUNNING)
    optuna.Trial(study, running._trial_id).report(0.25, 2)
    study.tell(running.number, 1.0)
    work(study, 3)
    assert facts(study_in(storage)) == facts(study)


def test_what_others_queue_is_tried(storage: optuna.storages.BaseStorage) -> None:
    study = mirrored(study_in(storage))
    work(study, 3)
    study_in(storage).enqueue_trial({"x": 0.125, "k": "b"})
    trial = study.ask()
    assert trial.suggest_float("x", 0, 1) == 0.125
    assert facts(study_in(storage)) == facts(study)


def test_a_trial_that_another_driver_took_is_not_taken_twice(
    storage: optuna.storages.BaseStorage,
) -> None:
    study = mirrored(study_in(storage))
    study.enqueue_trial({"x": 0.5})
    assert study_in(storage).ask().suggest_float("x", 0, 1) == 0.5
    assert study.ask().suggest_float("x", 0, 1) != 0.5
