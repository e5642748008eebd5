"""Whether and how a search can go on: finished, at its limits, with a changed space."""

from pathlib import Path

import pytest

from hpsearch.errors import UserError
from hpsearch.promotion.final_evaluation import SCORES_FILE
from hpsearch.search.stopping import Limits
from hpsearch.search.study import open_study
from hpsearch.search.workspace import SearchFolder, SearchRecord, Workspace
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.resume_search import (
    check_not_finished,
    extend,
    resolve_space_change,
    switch_cluster,
)
from hpsearch.workflows.search_session import is_complete

from ..servers import free_port

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.samplers import Fixed, Random
from hpsearch.search.search import Search

def suggest(trial):
    trial.suggest_categorical("kind", ["one", "two"])
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=2, sampler=Random(),
                baseline=TrialConfig(patches=100))
"""


class Recorder(Observer):
    """Keeps the messages of a workflow."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SPACE)
    return path


@pytest.fixture
def folder(tmp_path: Path, origin: Path) -> SearchFolder:
    """A search of which two trials have ended, one of them completed."""
    record = SearchRecord(
        space="mine.py", store="", fingerprint="", split="auto", tracking_uri="", trials=2,
        space_path=str(origin),
    )  # fmt: skip
    folder = Workspace(tmp_path / "home").create("mine", origin, record)
    study = open_study(folder.path, search=folder.search())
    for trial in ("000", "001"):
        drawn = study.ask()
        config = folder.search().suggest_config(drawn).model_dump(mode="json")
        study.tell(drawn, 0.5)
        folder.event_log.append("start", trial=trial, number=int(trial), config=config)
        folder.event_log.append("report", trial=trial, seen=100, objective=0.5, metrics={})
        folder.event_log.append("trial_finished", trial=trial, status="completed")
    return folder


def finish(folder: SearchFolder) -> None:
    folder.event_log.append("search_finished", status="completed")
    (folder.path / SCORES_FILE).write_text("{}")


def test_a_finished_search_names_extend_and_an_unjudged_one_goes_on(folder: SearchFolder) -> None:
    check_not_finished(folder)  # killed before its winner was judged
    finish(folder)
    with pytest.raises(UserError, match="has finished; add trials with `hpsearch extend mine"):
        check_not_finished(folder)
    more = extend(folder, 3)
    assert more.record.trials == 5
    assert Workspace(folder.workspace.home).open("mine").record.trials == 5
    check_not_finished(more)


def test_a_spent_limit_asks_for_a_larger_one(folder: SearchFolder) -> None:
    spent = folder.with_record(trials=9, limits=Limits(patches=200))
    with pytest.raises(UserError, match="has spent its limit of 200 patches"):
        check_not_finished(spent)
    check_not_finished(spent.with_record(limits=Limits(patches=201)))
    with pytest.raises(UserError, match="set a larger one with --max-patches"):
        extend(folder.with_record(limits=Limits(patches=200)), 1)
    assert Workspace(folder.workspace.home).open("mine").record.trials == 2, "nothing was added"
    more = extend(folder, 1, limits=Limits(patches=300))
    assert (more.record.trials, more.record.limits.patches) == (3, 300)


def test_a_search_runs_once_at_a_time(folder: SearchFolder) -> None:
    taken = pytest.raises(UserError, match="is running in another process")
    with folder.lock(), taken, folder.lock():
        pass
    with folder.lock():
        pass


def test_a_space_that_has_not_changed_or_is_gone_is_no_matter(
    folder: SearchFolder, origin: Path
) -> None:
    assert resolve_space_change(folder, None, Observer()) is folder
    origin.unlink()
    assert resolve_space_change(folder, None, Observer()) is folder


def test_a_changed_space_is_shown_and_kept_or_taken(folder: SearchFolder, origin: Path) -> None:
    origin.write_text(SPACE.replace("0.01, 1", "0.01, 0.5"))
    before, observer = folder.space.read_text(), Recorder()
    with pytest.raises(UserError, match=r"mine\.py has changed since search 'mine' began"):
        resolve_space_change(folder, None, observer)
    lines = [line for text in observer.messages for line in text.splitlines()]
    assert [line[:1] for line in lines if "lr" in line] == ["-", "+"]
    assert folder.space.read_text() == before
    kept = resolve_space_change(folder, "keep", Observer())
    assert kept.space.read_text() == before
    assert resolve_space_change(kept, None, Observer()) is kept, "and is not asked again"
    taken = resolve_space_change(folder, "update", Observer())
    assert taken.space.read_text() == origin.read_text()
    assert resolve_space_change(taken, None, Observer()) is taken
    with pytest.raises(UserError, match="keep or take, not 'both'"):
        resolve_space_change(folder, "both", Observer())


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ("budget=100", "budget=50", "patches=100, but the search's budget is 50|another budget"),
        ("baseline=TrialConfig(patches=100)", "baseline=TrialConfig(patches=9)", "baseline"),
        ('["one", "two"]', '["one", "two", "three"]', "draws 'kind' from other choices"),
        ("def suggest", "def propose", "does not run"),
    ],
)
def test_what_cannot_be_mixed_is_not_taken(
    folder: SearchFolder, origin: Path, before: str, now: str, words: str
) -> None:
    origin.write_text(SPACE.replace(before, now))
    kept = folder.space.read_text()
    with pytest.raises(UserError, match=words):
        resolve_space_change(folder, "update", Observer())
    assert folder.space.read_text() == kept


def test_a_search_that_lost_patience_goes_on_with_the_trials_that_are_asked_for(
    folder: SearchFolder,
) -> None:
    folder.space.write_text(SPACE.replace("trials=2", "trials=40, patience=1"))
    folder = folder.with_record(trials=40)
    assert is_complete(folder), "the second improved nothing"
    finish(folder)
    more = extend(folder, 3)
    assert more.record.trials == 5, "two were begun, and three are added"
    assert not is_complete(more)
    assert not is_complete(more.workspace.open("mine"))


def test_a_search_that_lists_its_trials_has_an_end(tmp_path: Path, origin: Path) -> None:
    listed = SPACE.replace("Random()", 'Fixed(points=[{"kind": "one", "lr": 0.5}])')
    origin.write_text(listed.replace("trials=2, ", ""))
    record = SearchRecord(
        space="mine.py", store="", fingerprint="", split="auto", tracking_uri="", trials=1
    )
    folder = Workspace(tmp_path / "home").create("listed", origin, record)
    with pytest.raises(UserError, match="has no more to try"):
        extend(folder, 1)


def test_a_cluster_that_does_not_answer_is_not_taken_down(folder: SearchFolder) -> None:
    for address, words in (
        (f"127.0.0.1:{free_port()}", "no Ray cluster answers at .*--address"),
        ("http://HEAD:8265", "is a dashboard.*HEAD:6379"),
    ):
        with pytest.raises(UserError, match=words):
            switch_cluster(folder, address, Observer())
    assert switch_cluster(folder, None, Observer()) is folder
    assert folder.workspace.open("mine").record == folder.record
