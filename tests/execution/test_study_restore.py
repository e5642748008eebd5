"""A study that was lost, or restored from an old copy, is rebuilt from the event log."""

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpsearch.cli import app
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.execution.study_restore import restore_study
from hpsearch.search.search_context import SearchContext
from hpsearch.search.study import check_study_complete, open_study
from hpsearch.search.workspace import Workspace
from hpsearch.workflows.resume_search import extend_search
from hpsearch.workflows.run_search import run_search

from ..reports import reported
from ..search_factory import plan

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.objective import *
from hpsearch.search.search import Search

SMALL = dict(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=240)

def suggest(trial):
    if trial.suggest_categorical("kind", ["a", "b", None]) == "a":
        trial.suggest_int("only with a", 1, 9)
    return TrialConfig(optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-3, log=True)), **SMALL)

SEARCH = Search(suggest=suggest, budget=240, report_every=120, trials=9, validation_points=4,
                initial_points=[{"kind": "a"}], baseline=TrialConfig(**SMALL), {more})
"""
SECONDS = {"train/seconds": 7.0}
ENDINGS = ["completed", "pruned", "collapsed", "failed", "diverged", "paused", "interrupted"]
"""Endings of trials, in the order of their start; they end in the opposite order."""


def run_trials(context: SearchContext, *, half: Path | None = None) -> None:
    """Run trials without training, with events as the trial supervisor logs them.

    Args:
        half: receives a copy of the study after half of the trials have ended.
    """
    searcher, log = searcher_of(context), context.event_log
    for number in range(len(ENDINGS)):
        given = searcher.suggest(str(number))
        log.append("start", trial=given["id"], number=number, config=given["trial"],
                   drawn=json.loads(given["drawn"]))  # fmt: skip
        searcher.on_trial_result(str(number), reported(120, 0.1 * number, metrics=SECONDS))
        log.append("report", trial=given["id"], seen=120, objective=0.1 * number, metrics=SECONDS)
    for number, status in reversed(list(enumerate(ENDINGS))):
        if half is not None and number == 3:
            shutil.copy(study_file(context), half)
        trial, reason = f"{number:03d}", f"because of {number}"
        if status == "paused":
            log.append("trial_paused", trial=trial)
            continue
        if status not in ("failed", "interrupted"):
            value = 0.0 if status in ("collapsed", "diverged") else 0.2 + 0.1 * number
            log.append("report", trial=trial, seen=240, objective=value, metrics=SECONDS)
            searcher.finish(str(number), status, reason, message(value, status))
        elif status == "failed":
            searcher.finish(str(number), status, reason, None)
        log.append("trial_finished", trial=trial, status=status, reason=reason)


def message(value: float, status: str) -> Any:
    from hpsearch.execution.worker_messages import from_dict

    return from_dict(reported(240, value, status, metrics=SECONDS))


def searcher_of(context: SearchContext) -> OptunaSearcher:
    return OptunaSearcher(context.paths.folder, space=context.paths.space, trials=9)


def study_file(context: SearchContext) -> Path:
    (file,) = context.paths.folder.glob("*.journal")
    return file


def content(study: optuna.Study) -> list[dict[str, Any]]:
    """Everything about the trials of a study but their times and ids."""
    return [
        {
            "state": trial.state, "values": trial.values, "params": trial.params,
            "distributions": trial.distributions, "attributes": trial.user_attrs,
            "reports": trial.intermediate_values, "constraints": trial.constraints,
        }
        for trial in study.trials
    ]  # fmt: skip


def study_of(context: SearchContext) -> optuna.Study:
    return open_study(context.paths.folder, search=context.search, url=context.record.study)


def next_draws(context: SearchContext) -> list[Any]:
    """The trial that is resumed, and two that TPE draws from all others."""
    searcher = searcher_of(context)
    return [searcher.suggest(name) for name in "xyz"]


@pytest.mark.parametrize(
    "more", ["", "objective=VERIFICATION, extra_objectives=(TRAINING_SECONDS,)"]
)
def test_a_lost_study_is_restored_as_it_was(tmp_path: Path, tiny: PatchStore, more: str) -> None:
    context = plan(tmp_path, tiny, SPACE.replace("{more}", more), trials=9)
    assert restore_study(context) == 0, "there is nothing to restore"
    run_trials(context)
    before, file = content(study_of(context)), study_file(context)
    assert [trial["state"].name for trial in before] == [
        "COMPLETE", "PRUNED", "COMPLETE", "FAIL", "COMPLETE", "RUNNING", "RUNNING"
    ]  # fmt: skip
    assert restore_study(context) == 0, "nothing is missing"
    kept = shutil.copy(file, tmp_path / "kept")
    expected = next_draws(context)
    file.unlink()
    assert restore_study(context) == 7
    assert content(study_of(context)) == before
    assert next_draws(context) == expected
    shutil.copy(kept, file)
    assert restore_study(context) == 0


def test_a_study_from_an_old_copy_gets_the_ends_that_it_lacks(
    tmp_path: Path, tiny: PatchStore
) -> None:
    context, half = plan(tmp_path, tiny, SPACE.replace("{more}", ""), trials=9), tmp_path / "half"
    run_trials(context, half=half)
    before = content(study_of(context))
    shutil.copy(half, study_file(context))
    assert content(study_of(context)) != before
    assert restore_study(context) == 4
    assert content(study_of(context)) == before


def test_a_trial_without_logged_parameters_is_not_invented(
    tmp_path: Path, tiny: PatchStore
) -> None:
    context = plan(tmp_path, tiny, SPACE.replace("{more}", ""), trials=9)
    config = context.search.baseline.model_dump(mode="json")
    context.event_log.append("start", trial="000", number=0, config=config)
    with pytest.raises(UserError, match="no parameters of trial 000") as caught:
        restore_study(context)
    assert caught.value.code == "study-not-restorable"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # MLflow, on our signature
def test_sync_restores_the_study_of_a_finished_search_which_is_then_extended(
    tmp_path: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home, space, database = tmp_path / "home", tmp_path / "mine.py", tmp_path / "study.db"
    space.write_text(SPACE.replace("{more}", ""))
    given = {"data": str(tiny.path), "cpus": 1, "home": home}
    run_search(space, trials=2, study=f"sqlite:///{database}", **given)
    context = Workspace(home).open("mine")
    before = content(study_of(context))
    assert len(before) == 2
    database.unlink()
    with pytest.raises(UserError, match="hpsearch sync mine") as caught:
        extend_search("mine", 1, home=home)
    assert caught.value.code == "study-incomplete"
    app(["sync", "mine", "--no-pictures", "--home", str(home)], standalone_mode=False)
    assert content(study_of(context)) == before
    check_study_complete(context)
    result = extend_search("mine", 1, home=home)
    assert result.winner is not None
    after = content(study_of(Workspace(home).open("mine")))
    assert (after[:2], len(after)) == (before, 3)
