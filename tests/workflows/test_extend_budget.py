"""Raising a budget: which trials train on, from what, and what is refused."""

import json
from pathlib import Path

import pytest

from hpsearch.errors import UserError
from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.execution.study_restore import restore_study
from hpsearch.reporting.leaderboard import summarize
from hpsearch.search.requests import SearchRequests
from hpsearch.search.search_context import SearchContext
from hpsearch.search.stopping import Limits, UsageTracker
from hpsearch.search.study import journal_path, open_study, study_address
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.training.trial import CHECKPOINT_FILE
from hpsearch.workflows.extend_budget import request_continuations, trials_to_continue

from ..reports import reported

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.samplers import Random
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100, seed=5)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=4, sampler=Random(),
                seeds_per_point=2, baseline=TrialConfig(patches=100))
"""
ENDS = (
    ("completed", 0.5, 100),
    ("running", 0.9, 20),
    ("completed", 0.7, 100),
    ("collapsed", 0, 30),
)


def searcher(context: SearchContext) -> OptunaSearcher:
    found = OptunaSearcher(
        context.paths.folder,
        space=context.paths.space,
        search=context.search,
        trials=context.record.trials,
    )
    found.requests = SearchRequests(context.event_log)
    return found


def start(context: SearchContext, tune: OptunaSearcher, attempt: str) -> dict:
    found = tune.suggest(attempt)
    drawn = json.loads(found["drawn"])
    fields = {"number": found["number"], "config": found["trial"], "drawn": drawn}
    context.event_log.append("start", trial=found["id"], **fields)
    return found


@pytest.fixture
def context(tmp_path: Path) -> SearchContext:
    """A search whose four trials have ended: two completed, one pruned, one collapsed."""
    space = tmp_path / "mine.py"
    space.write_text(SPACE)
    record = SearchRecord(
        space="mine.py", store="", fingerprint="", split="auto", tracking_uri="", trials=4
    )
    context = Workspace(tmp_path / "home").create("mine", space, record)
    tune = searcher(context)
    for number, (status, value, seen) in enumerate(ENDS):
        trial = start(context, tune, str(number))["id"]
        folder = context.paths.trials_dir / trial
        folder.mkdir(parents=True)
        (folder / CHECKPOINT_FILE).write_text(trial)
        context.event_log.append("report", trial=trial, seen=seen, objective=value, metrics={})
        tune.on_trial_complete(str(number), reported(seen, value, status))
        ended = "pruned" if status == "running" else status
        context.event_log.append("trial_finished", trial=trial, status=ended)
    return context


def test_the_best_train_on_as_new_trials_with_a_parent(context: SearchContext) -> None:
    chosen = trials_to_continue(context, 400, count=3)
    assert [run.label for run in chosen] == ["002", "000", "001"]
    assert [run.label for run in trials_to_continue(context, 400)] == ["002", "000"]
    longer = request_continuations(context, 400, chosen)
    assert (longer.search.budget, longer.record.trials) == (400, 7)
    tune, before = searcher(longer), {run.id: run for run in context.runs}
    for number, parent in enumerate(("002", "000", "001"), 4):
        found = start(longer, tune, str(number))
        assert found["id"] == f"{number:03d}"
        assert found["trial"] == {
            **before[parent].config.model_dump(mode="json"), "patches": 400
        }  # fmt: skip
        assert (longer.paths.trials_dir / found["id"] / CHECKPOINT_FILE).read_text() == parent
    assert tune.suggest("no more") == OptunaSearcher.FINISHED
    runs = {run.id: run for run in longer.runs}
    assert [(runs[i].parent, runs[i].inherited) for i in ("004", "005", "006")] == [
        ("002", 100), ("000", 100), ("001", 20),
    ]  # fmt: skip
    study = open_study(longer.paths.folder, search=longer.search)
    assert [t.user_attrs.get("parent") for t in study.trials[4:]] == ["002", "000", "001"]
    assert [t.params for t in study.trials[4:]] == [study.trials[i].params for i in (2, 0, 1)]


def test_patches_of_the_parent_are_counted_once(context: SearchContext) -> None:
    longer = request_continuations(context, 400, trials_to_continue(context, 400, count=1))
    trial = start(longer, searcher(longer), "4")["id"]
    for seen in (100, 400):
        longer.event_log.append("report", trial=trial, seen=seen, objective=0.8, metrics={})
    totals = summarize(longer.runs, budget=400)
    assert totals.trained == sum(seen for *_, seen in ENDS) + 300
    assert totals.budget == 4 * 100 + 300
    usage = UsageTracker(Limits(patches=10_000), longer.event_log)
    assert not usage.exceeded_limit()
    assert usage.patches == totals.trained


def test_a_lost_study_keeps_the_parents(context: SearchContext) -> None:
    longer = request_continuations(context, 400, trials_to_continue(context, 400, count=2))
    tune = searcher(longer)
    for number in (4, 5):
        start(longer, tune, str(number))
    before = [t.user_attrs.get("parent") for t in open_study(
        longer.paths.folder, search=longer.search).trials]  # fmt: skip
    files = [journal_path(study_address(longer.paths.folder, None))]
    assert files[0] is not None
    assert files[0].exists()
    files[0].unlink()
    restore_study(longer)
    study = open_study(longer.paths.folder, search=longer.search)
    assert [t.user_attrs.get("parent") for t in study.trials] == before
    assert searcher(longer).suggest("again")["id"] == "004", "unfinished ones come first"


def test_a_trial_that_was_trained_on_is_not_chosen_again(context: SearchContext) -> None:
    longer = request_continuations(context, 400, trials_to_continue(context, 400, count=1))
    trial = start(longer, searcher(longer), "4")["id"]
    with pytest.raises(UserError, match="unfinished"):
        trials_to_continue(longer, 800)
    longer.event_log.append("report", trial=trial, seen=400, objective=0.8, metrics={})
    longer.event_log.append("trial_finished", trial=trial, status="completed")
    assert [run.label for run in trials_to_continue(longer, 800)] == ["004", "000"]


@pytest.mark.parametrize("budget", [100, 99])
def test_a_budget_that_is_not_larger_is_refused(context: SearchContext, budget: int) -> None:
    with pytest.raises(UserError) as caught:
        trials_to_continue(context, budget)
    assert caught.value.code == "budget-not-larger"


def test_without_checkpoints_nothing_trains_on_and_nothing_is_written(
    context: SearchContext,
) -> None:
    for file in context.paths.trials_dir.rglob(CHECKPOINT_FILE):
        file.unlink()
    before = context.paths.event_log.read_bytes()
    with pytest.raises(UserError) as caught:
        trials_to_continue(context, 400)
    assert caught.value.code == "nothing-to-continue"
    assert context.paths.event_log.read_bytes() == before
