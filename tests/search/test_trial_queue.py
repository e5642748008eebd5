"""Grids, chosen points, repeats, several objectives and patience, driven as Tune drives them."""

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.search.space_file import load_search
from hpsearch.search.study import open_study
from hpsearch.search.trial_queue import TrialQueue

from ..reports import reported

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.objective import *
from hpsearch.search.samplers import *
from hpsearch.search.search import Search

def suggest(trial):
    sgd = SGD(lr={lr}, momentum=trial.suggest_categorical("momentum", [0.0, 0.9]))
    return TrialConfig(optimizer=sgd, patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, baseline=TrialConfig(patches=100),
                {more})
"""
STEPS = 'trial.suggest_float("lr", 0.1, 0.3, step=0.1)'
RANGE = 'trial.suggest_float("lr", 0.01, 1)'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mysearch"
    folder.mkdir()
    return folder


def begin(folder: Path, *, lr: str = RANGE, trials: int = 99, more: str) -> OptunaSearcher:
    (folder / "space.py").write_text(SPACE.format(lr=lr, more=more))
    return OptunaSearcher(folder, space=folder / "space.py", trials=trials)


def study_of(folder: Path) -> optuna.Study:
    return open_study(folder, search=load_search(folder / "space.py"))


def finish(search: OptunaSearcher, name: str, value: float, **more: Any) -> None:
    search.on_trial_complete(
        trial_id=name, result=reported(100, value, **{"status": "completed", **more})
    )


def drawn(search: OptunaSearcher, most: int = 99) -> list[tuple[float, float, int]]:
    """Rate, momentum and seed of every trial until the search says that there are no more."""
    found = []
    for i in range(most):
        given = search.suggest(f"t{i}")
        if given == OptunaSearcher.FINISHED:
            break
        config = given["trial"]
        assert given["number"] == i
        found.append((config["optimizer"]["lr"], config["optimizer"]["momentum"], config["seed"]))
        finish(search, f"t{i}", 0.5)
    return found


GRID = [(lr, momentum) for lr in (0.1, 0.2, 0.3) for momentum in (0.0, 0.9)]


def test_a_grid_is_tried_once_and_then_once_more_with_each_other_seed(folder: Path) -> None:
    search = begin(folder, lr=STEPS, more="sampler=Grid(), seeds_per_point=2")
    assert load_search(folder / "space.py").num_trials() == 12
    assert drawn(search) == [(*point, seed) for seed in (0, 1) for point in GRID]
    assert [trial.user_attrs["seed"] for trial in study_of(folder).trials] == [0] * 6 + [1] * 6


def test_a_grid_goes_on_where_it_stood(folder: Path) -> None:
    before = drawn(begin(folder, lr=STEPS, more="sampler=Grid()"), most=2)
    search = begin(folder, lr=STEPS, more="sampler=Grid()")
    third = search.suggest("a")["trial"]["optimizer"]["lr"]  # its driver dies here
    search = begin(folder, lr=STEPS, more="sampler=Grid()")
    again = search.suggest("b")["trial"]["optimizer"]["lr"]
    rest = [search.suggest(f"c{i}") for i in range(4)]
    assert [lr for lr, *_ in before] + [third] == [0.1, 0.1, 0.2]
    assert again == third
    assert [given["number"] for given in rest[:3]] == [3, 4, 5]
    assert rest[3] == OptunaSearcher.FINISHED


def test_chosen_points_with_three_seeds_and_nothing_else(folder: Path) -> None:
    first = "points=[{'lr': 0.5, 'momentum': 0.9}, {'lr': 0.02, 'momentum': 0.0}]"
    search = begin(folder, more=f"sampler=Fixed({first}), seeds_per_point=3")
    points = [(0.5, 0.9), (0.02, 0.0)]
    assert drawn(search) == [(*point, seed) for seed in (0, 1, 2) for point in points]


@pytest.mark.parametrize("sampler", ["TPE()", "Random()", "NSGA2()"])
def test_what_is_drawn_is_repeated_with_every_seed(folder: Path, sampler: str) -> None:
    search = begin(folder, trials=18, more=f"sampler={sampler}, trials=18, seeds_per_point=2")
    found = drawn(search)
    assert [seed for *_, seed in found] == [0, 1] * 9
    assert [point[:2] for point in found[::2]] == [point[:2] for point in found[1::2]]
    assert len({point[0] for point in found}) == 9


def test_a_repeat_that_was_cut_off_is_not_lost(folder: Path) -> None:
    more = "trials=6, seeds_per_point=3"
    whole = drawn(begin(folder, trials=6, more=more))
    (folder / "study.journal").unlink()
    first = drawn(begin(folder, trials=6, more=more), most=2)
    search = begin(folder, trials=6, more=more)
    rest = [search.suggest(f"r{i}")["trial"] for i in range(4)]
    assert whole[:2] == first
    assert [(c["optimizer"]["lr"], c["seed"]) for c in rest] == [(lr, s) for lr, _, s in whole[2:]]


def test_points_that_a_user_queues_are_tried_next(folder: Path) -> None:
    search = begin(folder, more="trials=9")
    drawn(search, most=2)
    study_of(folder).enqueue_trial({"lr": 0.25, "momentum": 0.9})
    assert search.suggest("next")["trial"]["optimizer"]["lr"] == 0.25
    assert search.suggest("then")["trial"]["optimizer"]["lr"] != 0.25


PARETO = "trials=9, objective=VERIFICATION, extra_objectives=(TRAINING_SECONDS,), sampler={sampler}"


def finished(search: OptunaSearcher, name: str, one: float, seconds: float, **more: Any) -> None:
    search.suggest(name)
    search.on_trial_result(name, reported(10, one))
    finish(search, name, one, metrics={"train/seconds": seconds}, **more)


def test_several_objectives_are_reported_together(folder: Path) -> None:
    search = begin(folder, more=PARETO.format(sampler="TPE()"))
    finished(search, "quick", 0.5, 10.0)
    finished(search, "good", 0.8, 90.0)
    finished(search, "beaten", 0.4, 20.0)
    finished(search, "collapsed", 0.0, 1.0, status="collapsed", collapsed=True)
    finished(search, "stopped", 0.9, 2.0, status="running")
    search.suggest("without seconds")
    finish(search, "without seconds", 0.9, metrics={})
    study = study_of(folder)
    values = [trial.values for trial in study.trials]
    assert values == [[0.5, 10.0], [0.8, 90.0], [0.4, 20.0], [0.0, 1e7], None, None]
    states = ["COMPLETE"] * 4 + ["PRUNED", "FAIL"]
    assert [trial.state.name for trial in study.trials] == states
    assert sorted(trial.number for trial in study.best_trials) == [0, 1]


@pytest.mark.parametrize("sampler", ["TPE()", "Random()", "NSGA2()"])
def test_samplers_go_on_after_trials_that_were_stopped_or_collapsed(
    folder: Path, sampler: str
) -> None:
    search = begin(folder, more=PARETO.format(sampler=sampler))
    for i in range(9):
        status = ("completed", "running", "collapsed")[i % 3]
        value = 0.0 if status == "collapsed" else 0.1 * i
        finished(search, str(i), value, 5.0 + i, status=status, collapsed=status == "collapsed")
    states = [trial.state for trial in study_of(folder).trials]
    assert states.count(TrialState.PRUNED) == 3
    assert states.count(TrialState.COMPLETE) == 6


def test_no_more_are_begun_after_trials_without_improvement(folder: Path) -> None:
    search = begin(folder, more="trials=20, patience=3")
    for name, value in (("a", 0.5), ("b", 0.4), ("c", 0.6), ("d", 0.6), ("e", 0.1)):
        search.suggest(name)
        finish(search, name, value)
    search.suggest("slow")
    search.suggest("collapsed")
    finish(search, "collapsed", 0.9, status="collapsed", collapsed=True)
    assert search.suggest("early") is None, "the slow one may improve"
    finish(search, "slow", 0.7)
    assert isinstance(search.suggest("f"), dict), "and it did"
    finish(search, "f", 0.2)
    for name in ("g", "h"):
        search.suggest(name)
        finish(search, name, 0.2)
    assert search.suggest("last") == OptunaSearcher.FINISHED
    again = begin(folder, more="trials=20, patience=3")
    assert again.suggest("resumed") == OptunaSearcher.FINISHED
    more = OptunaSearcher(folder, space=folder / "space.py", trials=20, patience_offset=10)
    for name in ("i", "j", "k"):
        assert isinstance(more.suggest(name), dict), "an extended search has patience anew"
        finish(more, name, 0.7)
    assert more.suggest("end") == OptunaSearcher.FINISHED


EXHAUSTIBLE = [
    (STEPS, "trials=99", 1),  # 6 points that can be listed
    (STEPS, "trials=99, sampler=Random(), seeds_per_point=2", 2),
    (STEPS, "trials=99, sampler=NSGA2()", 1),
    (STEPS, "trials=99, initial_points=[{'lr': 0.2, 'momentum': 0.9}] * 2", 1),
    # 3 rates of infinitely many values that are drawn
    ("round(trial.suggest_float('any', 0.06, 0.34), 1)", "trials=99, sampler=Random()", 1),
    # a grid over a value that is not used
    (f"{STEPS} + 0 * trial.suggest_int('unused', 0, 2)", "sampler=Grid()", 1),
]


@pytest.mark.parametrize(("lr", "more", "seeds"), EXHAUSTIBLE)
def test_no_configuration_is_trained_twice_and_the_space_is_exhausted(
    folder: Path, lr: str, more: str, seeds: int
) -> None:
    search = begin(folder, lr=lr, more=more)
    found = [(round(lr, 3), *rest) for lr, *rest in drawn(search)]
    assert sorted(found) == sorted((*point, seed) for point in GRID for seed in range(seeds))
    assert search.is_exhausted
    again = OptunaSearcher(folder, space=folder / "space.py", trials=99)
    assert again.suggest("later") == OptunaSearcher.FINISHED, "and after a restart"
    assert again.is_exhausted


def test_a_space_that_draws_nothing_has_one_configuration(folder: Path) -> None:
    text = SPACE.replace('trial.suggest_categorical("momentum", [0.0, 0.9])', "0.5")
    (folder / "space.py").write_text(text.format(lr="0.5", more="trials=9, seeds_per_point=3"))
    search = OptunaSearcher(folder, space=folder / "space.py", trials=9)
    assert drawn(search) == [(0.5, 0.5, seed) for seed in range(3)]
    assert search.is_exhausted


def test_a_search_that_has_its_trials_is_not_exhausted(folder: Path) -> None:
    search = begin(folder, trials=3, more="trials=3")
    assert len(drawn(search)) == 3
    assert not search.is_exhausted


def test_ended_trials_are_counted_without_a_look_at_each_again() -> None:
    study, queue = optuna.create_study(), TrialQueue((), 1, is_finite=False)
    rng, running = np.random.default_rng(0), list[optuna.Trial]()
    for _ in range(60):
        if running and rng.random() < 0.5:
            study.tell(running.pop(rng.integers(len(running))), 0.5)
        else:
            running.append(study.ask())
        trials = study.get_trials(deepcopy=False)
        expected = sum(trial.state.is_finished() for trial in trials)
        assert queue.count_finished(trials) == expected
    ended: list[Any] = [None if trial.state.is_finished() else trial for trial in trials]
    assert queue.count_finished(ended) == expected, "ended trials are not looked at"
