"""A search on a closed-form objective, from the first trial to the last: the study tells the truth.

A part of the space collapses: where the learning rate is too large for the number of views.
"""

import math
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from hpsearch.execution.optuna_searcher import OUTCOME_ATTR, OptunaSearcher
from hpsearch.search.pruners import PrunerWithHistory, SuccessiveHalving
from hpsearch.search.space_file import load_search
from hpsearch.search.study import open_study

from ..reports import reported

SPACE = """
from hpsearch.config import SGD, Adam, BatchHard, PKSampler, TrialConfig
from hpsearch.search.samplers import TPE, Random
from hpsearch.search.search import Search

def suggest(trial):
    views = trial.suggest_categorical("views", [2, 4, 8, 16])
    if trial.suggest_categorical("optimiser", ["sgd", "adam"]) == "sgd":
        optimiser = SGD(lr=trial.suggest_float("sgd_lr", 1e-3, 10, log=True))
    else:
        optimiser = Adam(lr=trial.suggest_float("adam_lr", 1e-5, 1e-1, log=True))
    sampler = PKSampler(groups=8, views=views)
    return TrialConfig(loss=BatchHard(), sampler=sampler, optimizer=optimiser, patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=25, trials=60, seed={seed},
                sampler={sampler}, baseline=TrialConfig(patches=100))
"""


LITERAL = {"completed": 6, "collapsed": 28, "pruned": 24, "failed": 2}


def make(folder: Path, sampler: str, seed: int) -> OptunaSearcher:
    folder.mkdir()
    (folder / "space.py").write_text(SPACE.format(sampler=sampler, seed=seed))
    return OptunaSearcher(folder, space=folder / "space.py", trials=60)


def strain(config: dict[str, Any]) -> float:
    """Decades by which the learning rate exceeds what the views bear; above 0 it collapses."""
    bearable = -0.5 if config["optimizer"]["kind"] == "sgd" else -2.5
    views = config["sampler"]["views"]
    return math.log10(config["optimizer"]["lr"]) - bearable + 0.3 * math.log2(views / 2)


def score(config: dict[str, Any]) -> float:
    """Best a decade below the edge."""
    return 0.85 - 0.05 * (strain(config) + 1) ** 2


def shares(folder: Path, sampler: str, seed: int) -> tuple[float, float]:
    """Share of collapsing suggestions in the first and in the last third of 60 trials."""
    search, collapsed = make(folder, sampler, seed), []
    for i in range(60):
        config = search.suggest(str(i))["trial"]
        bad = strain(config) > 0
        status = "collapsed" if bad else "completed"
        result = reported(100, 0.0 if bad else score(config), status)
        search.on_trial_complete(trial_id=str(i), result=result)
        collapsed.append(bad)
    return sum(collapsed[:20]) / 20, sum(collapsed[40:]) / 20


def test_tpe_learns_to_stay_away_from_collapse_and_random_search_does_not(tmp_path: Path) -> None:
    tpe = [shares(tmp_path / f"tpe{seed}", "TPE()", seed) for seed in (0, 1, 2)]
    assert all(last <= first / 2 + 0.05 for first, last in tpe), tpe
    random = [shares(tmp_path / f"random{seed}", "Random()", seed) for seed in (0, 1, 2)]
    assert sum(last for _, last in random) / 3 > 2 * sum(last for _, last in tpe) / 3


def test_a_whole_search_is_reported_correctly(tmp_path: Path) -> None:
    """Every seventh trial breaks; successive halving stops; each state and each value is right."""
    search = make(tmp_path / "s", "Random()", 5)
    halving = SuccessiveHalving((25.0, 50.0), 3.0)
    pruner = PrunerWithHistory(halving, direction="maximize", name="s")
    expected: list[tuple[str, dict[int, float]]] = []
    for i in range(60):
        config = search.suggest(str(i))["trial"]
        ending = "completed"
        curve: dict[int, float] = {}
        result: dict[str, Any] = {}
        for seen in (25, 50, 75, 100):
            if i % 7 == 6 and seen == 50:
                ending = "failed"
                break
            bad = strain(config) > 0
            curve[seen] = 0.0 if bad else score(config) * (1 - math.exp(-seen / 30))
            result = {"seen": seen, "value": curve[seen]}
            if bad or seen == 100:
                ending = "collapsed" if bad else "completed"
                break
            if pruner.should_prune(i, seen=seen, value=curve[seen]):
                ending = "pruned"
                break
            search.on_trial_result(str(i), reported(**result))
        last = reported(**result, status="running" if ending == "pruned" else ending)
        search.on_trial_complete(trial_id=str(i), result=last, error=ending == "failed")
        expected.append((ending, curve))
    trials = open_study(tmp_path / "s", search=load_search(tmp_path / "s" / "space.py")).trials
    assert [(t.user_attrs[OUTCOME_ATTR], t.intermediate_values) for t in trials] == expected
    states = [trial.state for trial in trials]
    endings = [ending for ending, _ in expected]
    for state, words in (
        (TrialState.COMPLETE, ("completed", "collapsed")),
        (TrialState.PRUNED, ("pruned",)),
        (TrialState.FAIL, ("failed",)),
    ):
        assert states.count(state) == sum(endings.count(word) for word in words) > 0
    assert {word: endings.count(word) for word in LITERAL} == LITERAL
