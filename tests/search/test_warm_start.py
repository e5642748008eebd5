"""Warm start: which trials of an earlier search fit, and that they are nobody's trials."""

from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpsearch.config import L2Net, TrialConfig
from hpsearch.errors import UserError
from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.search.objective import MATCHING, Objective
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.space_file import load_search
from hpsearch.search.study import open_study, study_without_imports
from hpsearch.search.trial_queue import TRANSFER_ATTR, started_trials
from hpsearch.search.warm_start import (
    check_same_objective,
    compatible_trials,
    difference_in_terms,
    transferred_trials,
    warm_start,
)
from hpsearch.search.workspace import SearchRecord, Workspace

from ..reports import reported

SPACE = """
from hpsearch.config import SGD, Adam, TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    if trial.suggest_categorical("kind", ["sgd", "adam"]) == "sgd":
        sgd = SGD(lr=trial.suggest_float("lr", 0.01, {high}))
        return TrialConfig(optimizer=sgd, patches={budget})
    return TrialConfig(optimizer=Adam(lr=0.001), patches={budget})

SEARCH = Search(suggest=suggest, budget={budget}, report_every=10, trials=5,
                baseline=TrialConfig(patches={budget}))
"""
RECORD = SearchRecord(
    space="s", store="s", fingerprint="f", split="auto", tracking_uri="sqlite://", trials=5
)


def folder_of(tmp_path: Path, name: str, *, high: float = 1.0, budget: int = 100) -> SearchContext:
    space = tmp_path / f"{name}.py"
    space.write_text(SPACE.format(high=high, budget=budget))
    return Workspace(tmp_path).create(name, space, RECORD)


def bridge(context: SearchContext) -> OptunaSearcher:
    return OptunaSearcher(context.paths.folder, space=context.paths.space, trials=5)


def study_of(context: SearchContext) -> optuna.Study:
    return open_study(context.paths.folder, search=context.search)


ENDS = [("completed", 0.7), ("running", 0.3), ("collapsed", 0.0)]


def learnt(context: SearchContext) -> None:
    """Three trials of SGD with rates 0.8, 0.4, 0.02, one of Adam, one that failed."""
    study = study_of(context)
    for rate in (0.8, 0.4, 0.02):
        study.enqueue_trial({"kind": "sgd", "lr": rate})
    study.enqueue_trial({"kind": "adam"})
    search = bridge(context)
    for i, (status, value) in enumerate([*ENDS, ("completed", 0.6)]):
        search.suggest(str(i))
        search.on_trial_result(str(i), reported(50, value))
        search.on_trial_complete(trial_id=str(i), result=reported(100, value, status))
    search.suggest("failed")
    search.on_trial_complete(trial_id="failed", error=True)


def test_a_new_search_knows_what_fits_and_counts_from_0(tmp_path: Path) -> None:
    earlier, new = folder_of(tmp_path, "earlier"), folder_of(tmp_path, "new", high=0.5)
    learnt(earlier)
    assert warm_start(new, earlier) == (3, 4), "a rate of 0.8 is outside the new space"
    assert warm_start(new, earlier) == (3, 4)
    known = study_of(new).trials
    states = [TrialState.PRUNED, TrialState.COMPLETE, TrialState.COMPLETE]
    assert [trial.state for trial in known] == states
    assert [trial.params.get("lr") for trial in known] == [0.4, 0.02, None]
    assert known[0].intermediate_values == {50: 0.3, 100: 0.3}
    assert known[1].constraints == {"collapsed": 1.0}
    assert known[1].user_attrs["warm_from"] == "earlier/2"
    search = bridge(new)
    given = [search.suggest(str(i)) for i in range(6)]
    assert [config["number"] for config in given[:5]] == [0, 1, 2, 3, 4]
    assert [config["id"] for config in given[:2]] == ["000", "001"]
    assert given[5] == OptunaSearcher.FINISHED
    assert len(started_trials(study_of(new).trials)) == 5
    assert len(study_without_imports(study_of(new)).trials) == 5
    assert len(bridge_again(new)) == 5


def bridge_again(context: SearchContext) -> list[optuna.trial.FrozenTrial]:
    """A new session goes on with the five that run."""
    search = bridge(context)
    assert [search.suggest(str(i))["number"] for i in range(5)] == [0, 1, 2, 3, 4]
    return started_trials(study_of(context).get_trials(deepcopy=False))


def test_a_smaller_budget_counts_as_stopped_there(tmp_path: Path) -> None:
    earlier = folder_of(tmp_path, "earlier")
    learnt(earlier)
    new = load_search(folder_of(tmp_path, "new", budget=300).paths.space)
    trials = started_trials(study_of(earlier).get_trials(deepcopy=False))[:4]
    fitting = list(compatible_trials(trials, new, "earlier", budget=100))
    states = [TrialState.PRUNED, TrialState.PRUNED, TrialState.COMPLETE, TrialState.PRUNED]
    assert [trial.state for trial in fitting] == states
    assert fitting[0].value == 0.7


def other(**changes: object) -> Search:
    values: dict = {"budget": 100, "report_every": 10, "trials": 5, **changes}
    return Search(suggest=lambda trial: TrialConfig(), baseline=TrialConfig(), **values)


@pytest.mark.parametrize(
    "search", [other(objective=MATCHING), other(objective=Objective(worst=-1.0))]
)
def test_another_objective_is_refused(tmp_path: Path, search: Search) -> None:
    earlier = folder_of(tmp_path, "earlier")
    with pytest.raises(UserError, match=r"'earlier' .*another objective \(val/mAP\)") as caught:
        check_same_objective(earlier, search)
    assert caught.value.code == "incomparable-search"


def fixed(**changes: object) -> Search:
    values: dict = {"budget": 100, "report_every": 10, "trials": 5, **changes}
    config = TrialConfig(patches=values["budget"], descriptor=L2Net(width=values.pop("width", 1.0)))
    return Search(suggest=lambda trial: config, baseline=config, **values)


@pytest.mark.parametrize(
    ("search", "fingerprint", "split", "words"),
    [
        (fixed(), "f", "mini", ""),
        (fixed(budget=200), "f", "mini", ""),
        (fixed(), "g", "mini", "other patches"),
        (fixed(budget=90), "f", "mini", "a budget of 100 patches, not 90"),
        (fixed(width=0.5), "f", "mini", "another width"),
        (fixed(), "f", "a", "another split"),
    ],
)
def test_what_makes_values_incomparable_is_named(
    search: Search, fingerprint: str, split: str, words: str
) -> None:
    earlier = SimpleNamespace(
        search=fixed(),
        record=SimpleNamespace(fingerprint="f", validation_fingerprint=None),
    )
    found = difference_in_terms(
        earlier,  # type: ignore[arg-type]
        search=search,
        fingerprint=fingerprint,
        is_same_split=lambda: split == "mini",
    )
    assert found == words


def test_trials_of_other_patches_come_with_ranks_and_no_values(tmp_path: Path) -> None:
    earlier = folder_of(tmp_path, "earlier")
    learnt(earlier)
    new = load_search(folder_of(tmp_path, "new", budget=50).paths.space)
    trials = started_trials(study_of(earlier).get_trials(deepcopy=False))
    moved = list(transferred_trials(trials, new, "earlier", direction=StudyDirection.MAXIMIZE))
    assert [(t.params, t.user_attrs[TRANSFER_ATTR]) for t in moved] == [
        ({"kind": "sgd", "lr": 0.8}, 1.0),
        ({"kind": "adam"}, pytest.approx(2 / 3)),
        ({"kind": "sgd", "lr": 0.4}, pytest.approx(1 / 3)),
        ({"kind": "sgd", "lr": 0.02}, 0.0),
    ]
    assert {t.state for t in moved} == {TrialState.FAIL}
    assert all(t.values is None and not started_trials([t]) for t in moved)
