"""The bridge, driven as Tune drives it: a study that tells the truth, also after a restart."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.execution.optuna_searcher import OUTCOME_ATTR, OptunaSearcher
from hpsearch.search.space_file import load_search
from hpsearch.search.study import open_study

from ..reports import reported

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.samplers import TPE, Random
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=9, sampler={sampler},
                baseline=TrialConfig(patches=100), initial_points=[{{"lr": 0.5}}])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mysearch"
    folder.mkdir()
    (folder / "space.py").write_text(SPACE.format(sampler="TPE()"))
    return folder


def bridge(folder: Path, trials: int = 40) -> OptunaSearcher:
    return OptunaSearcher(folder, space=folder / "space.py", trials=trials)


def bridge_after(folder: Path, count: int) -> list:
    """What a new session suggests after ``count`` trials that it goes on with."""
    search = bridge(folder)
    return [search.suggest(str(i)) for i in range(count + 1)][count:]


def configs(folder: Path) -> list[dict]:
    return [trial.user_attrs["config"] for trial in study_of(folder).trials]


def study_of(folder: Path) -> optuna.Study:
    return open_study(folder, search=load_search(folder / "space.py"))


result = reported


def test_the_first_points_come_first(folder: Path) -> None:
    config = bridge(folder).suggest("a")
    assert isinstance(config, dict)
    assert config["trial"]["optimizer"]["lr"] == 0.5
    assert config["number"] == 0


ENDINGS = [
    ("completed", TrialState.COMPLETE, 0.7),
    ("running", TrialState.PRUNED, 0.7),
    ("collapsed", TrialState.COMPLETE, 0.0),
    ("diverged", TrialState.COMPLETE, 0.0),
]


@pytest.mark.parametrize(("status", "state", "value"), ENDINGS)
def test_every_ending_is_reported_correctly(
    folder: Path, status: str, state: TrialState, value: float
) -> None:
    search = bridge(folder)
    search.suggest("a")
    search.on_trial_result("a", result(10, 0.5))
    search.on_trial_complete(trial_id="a", result=result(20, value, status), error=False)
    (trial,) = study_of(folder).trials
    assert trial.state == state
    assert trial.value == value
    assert trial.intermediate_values == {10: 0.5, 20: value}
    assert trial.user_attrs[OUTCOME_ATTR] == ("pruned" if status == "running" else status)
    assert (trial.constraints["collapsed"] > 0) == (status in ("collapsed", "diverged"))


def test_a_trial_that_was_stopped_in_a_collapse_has_collapsed(folder: Path) -> None:
    search = bridge(folder)
    search.suggest("a")
    search.on_trial_complete(trial_id="a", result=result(20, 0.0, collapsed=True))
    (trial,) = study_of(folder).trials
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.0)
    assert trial.user_attrs[OUTCOME_ATTR] == "collapsed"
    assert trial.constraints["collapsed"] > 0


@pytest.mark.parametrize("last", [None, {}, {"seen": 5}], ids=["none", "empty", "no objective"])
def test_a_trial_without_a_value_failed(folder: Path, last: dict | None) -> None:
    search = bridge(folder)
    search.suggest("a")
    search.on_trial_complete(trial_id="a", result=last, error=False)
    assert study_of(folder).trials[0].state == TrialState.FAIL


def test_an_error_is_a_failure_even_after_reports(folder: Path) -> None:
    search = bridge(folder)
    search.suggest("a")
    search.on_trial_complete(trial_id="a", result=result(10, 0.9), error=True)
    study = study_of(folder)
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].value is None


def test_the_best_trial_is_one_that_did_not_collapse(folder: Path) -> None:
    search = bridge(folder)
    for trial, value, status in (("a", 0.2, "completed"), ("b", 0.9, "collapsed")):
        search.suggest(trial)
        search.on_trial_complete(trial_id=trial, result=result(100, value, status))
    assert study_of(folder).best_trial.number == 0


def test_what_is_sent_twice_changes_nothing(folder: Path) -> None:
    search = bridge(folder)
    search.suggest("a")
    for _ in range(2):
        search.on_trial_result("a", result(10, 0.5))
        search.on_trial_complete(trial_id="a", result=result(100, 0.7, "completed"))
    (trial,) = study_of(folder).trials
    assert trial.intermediate_values == {10: 0.5, 100: 0.7}


def test_a_restart_hands_out_the_trials_that_did_not_end_and_then_new_ones(folder: Path) -> None:
    search = bridge(folder, trials=4)
    for trial in "abc":
        search.suggest(trial)
    search.on_trial_complete(trial_id="b", result=result(100, 0.6, "completed"))
    before = configs(folder)
    again = bridge(folder, trials=4)
    handed = [again.suggest(trial) for trial in "xyz"]
    assert [config["number"] for config in handed] == [0, 2, 3]
    assert [config["trial"] for config in handed[:2]] == [before[0], before[2]]
    assert again.suggest("one too many") == OptunaSearcher.FINISHED
    again.on_trial_complete(trial_id="x", result=result(100, 0.5, "completed"))
    states = [trial.state for trial in study_of(folder).trials]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING] * 2


def test_a_driver_that_died_while_it_drew_draws_the_same(folder: Path, tmp_path: Path) -> None:
    whole, cut = bridge(folder), tmp_path / "cut"
    expected = [whole.suggest(trial) for trial in "ab"]
    cut.mkdir()
    (cut / "space.py").write_text((folder / "space.py").read_text())
    bridge(cut).suggest("a")
    study_of(cut).ask()
    assert [bridge(cut).suggest("x"), *bridge_after(cut, 1)] == expected


@pytest.mark.parametrize("sampler", ["TPE()", "Random()"])
def test_a_search_in_pieces_draws_as_one_in_one_go(
    folder: Path, tmp_path: Path, sampler: str
) -> None:
    def run(where: Path, pieces: list[int]) -> list[dict]:
        where.mkdir()
        (where / "space.py").write_text(SPACE.format(sampler=sampler))
        for end in pieces:
            search = bridge(where, trials=end)
            while isinstance(config := search.suggest("t"), dict):
                rate = config["trial"]["optimizer"]["lr"]
                last = result(100, 1 - rate, "completed")
                search.on_trial_complete(trial_id="t", result=last)
        return configs(where)

    assert run(tmp_path / "whole", [14]) == run(tmp_path / "pieces", [3, 8, 9, 14])


BRANCHES = """
from hpsearch.config import SGD, Adam, TrialConfig
from hpsearch.search.samplers import GP, TPE
from hpsearch.search.search import Search

def suggest(trial):
    kind = trial.suggest_categorical("kind", ["adam", "sgd", "only"])
    if kind == "only":
        return TrialConfig(optimizer=SGD(lr=0.9), patches=100)
    lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    return TrialConfig(optimizer=(Adam if kind == "adam" else SGD)(lr=lr), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=25, sampler={sampler},
                baseline=TrialConfig(patches=100), initial_points=[{{"kind": "only"}}])
"""


@pytest.mark.parametrize("sampler", ["TPE()", "GP(startup_trials=6)"])
def test_a_branch_with_one_configuration_does_not_end_the_search(
    folder: Path, sampler: str
) -> None:
    """TPE prefers the branch that it has seen least of; trained once, it gives nothing new."""
    (folder / "space.py").write_text(BRANCHES.format(sampler=sampler))
    search = bridge(folder, trials=25)
    for number in range(25):
        found = search.suggest(str(number))
        assert isinstance(found, dict), f"it ended after {number} trials"
        kind, lr = found["trial"]["optimizer"]["kind"], found["trial"]["optimizer"]["lr"]
        value, status = 0.7 if kind == "adam" else 0.6, "completed"
        if lr == 0.9:
            value, status = 0.0, "collapsed"
        search.on_trial_complete(str(number), result(100, value + lr, status))
    assert search.suggest("more") == OptunaSearcher.FINISHED
