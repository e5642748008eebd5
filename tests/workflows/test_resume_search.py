"""Whether and how a search can go on: finished, at its limits, with a changed space."""

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from hpsearch.errors import UserError
from hpsearch.search.search_context import SCORES_FILE, SearchContext
from hpsearch.search.stopping import Limits
from hpsearch.search.study import open_study
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.resume_search import (
    check_not_finished,
    extend,
    resolve_space_change,
    switch_cluster,
)

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
def context(tmp_path: Path, origin: Path) -> SearchContext:
    """A search of which two trials have ended, one of them completed."""
    record = SearchRecord(
        space="mine.py", store="", fingerprint="", split="auto", tracking_uri="", trials=2,
        space_path=str(origin),
    )  # fmt: skip
    context = Workspace(tmp_path / "home").create("mine", origin, record)
    study = open_study(context.paths.folder, search=context.search)
    for trial in ("000", "001"):
        drawn = study.ask()
        config = context.search.suggest_config(drawn).model_dump(mode="json")
        study.tell(drawn, 0.5)
        context.event_log.append("start", trial=trial, number=int(trial), config=config)
        context.event_log.append("report", trial=trial, seen=100, objective=0.5, metrics={})
        context.event_log.append("trial_finished", trial=trial, status="completed")
    return context


def finish(context: SearchContext) -> None:
    context.event_log.append("search_finished", status="completed")
    (context.paths.folder / SCORES_FILE).write_text("{}")


def lr_range(context: SearchContext) -> tuple[float, float]:
    """Lowest and highest learning rate that the loaded space draws."""
    study = optuna.create_study()
    trial = study.ask()
    context.search.suggest_config(trial)
    distribution = trial.distributions["lr"]
    assert isinstance(distribution, FloatDistribution)
    return distribution.low, distribution.high


def test_a_finished_search_names_extend_and_an_unjudged_one_goes_on(context: SearchContext) -> None:
    check_not_finished(context)  # killed before its winner was judged
    finish(context)
    with pytest.raises(UserError, match="`hpsearch extend mine") as caught:
        check_not_finished(context)
    assert caught.value.code == "search-finished"
    with pytest.raises(UserError, match="`hpsearch extend mine") as caught:
        Workspace(context.home).check_name_available("mine")
    assert caught.value.code == "search-exists"
    more = extend(context, 3)
    with pytest.raises(UserError, match="`hpsearch resume mine") as caught:
        Workspace(context.home).check_name_available("mine")
    assert "extend" not in str(caught.value)
    assert more.record.trials == 5
    assert Workspace(context.home).open("mine").record.trials == 5
    check_not_finished(more)


def test_a_spent_limit_asks_for_a_larger_one(context: SearchContext) -> None:
    spent = context.with_record(trials=9, limits=Limits(patches=200))
    with pytest.raises(UserError, match="200 patches") as caught:
        check_not_finished(spent)
    assert caught.value.code == "limit-reached"
    check_not_finished(spent.with_record(limits=Limits(patches=201)))
    with pytest.raises(UserError, match="--max-patches"):
        extend(context.with_record(limits=Limits(patches=200)), 1)
    assert caught.value.code == "limit-reached"
    assert Workspace(context.home).open("mine").record.trials == 2, "nothing was added"
    more = extend(context, 1, limits=Limits(patches=300))
    assert (more.record.trials, more.record.limits.patches) == (3, 300)


def test_a_search_runs_once_at_a_time(context: SearchContext) -> None:
    taken = pytest.raises(UserError, match="is running in another process")
    with context.lock(), taken, context.lock():
        pass
    with context.lock():
        pass


def test_a_space_that_has_not_changed_or_is_gone_is_no_matter(
    context: SearchContext, origin: Path
) -> None:
    assert resolve_space_change(context, None, Observer()) is context
    origin.unlink()
    assert resolve_space_change(context, None, Observer()) is context


def test_a_changed_space_is_shown_and_kept_or_taken(context: SearchContext, origin: Path) -> None:
    origin.write_text(SPACE.replace("0.01, 1", "0.01, 0.5"))
    before, observer = context.paths.space.read_text(), Recorder()
    assert lr_range(context) == (0.01, 1)
    with pytest.raises(UserError, match=r"mine\.py .*'mine'") as caught:
        resolve_space_change(context, None, observer)
    assert caught.value.code == "space-changed"
    lines = [line for text in observer.messages for line in text.splitlines()]
    assert [line[:1] for line in lines if "lr" in line] == ["-", "+"]
    assert context.paths.space.read_text() == before
    kept = resolve_space_change(context, "keep", Observer())
    assert kept.paths.space.read_text() == before
    assert lr_range(kept) == (0.01, 1)
    assert resolve_space_change(kept, None, Observer()) is kept, "and is not asked again"
    taken = resolve_space_change(context, "update", Observer())
    assert taken.paths.space.read_text() == origin.read_text()
    assert lr_range(taken) == (0.01, 0.5), "the file that was taken"
    assert resolve_space_change(taken, None, Observer()) is taken
    with pytest.raises(UserError, match="'both'") as caught:
        resolve_space_change(context, "both", Observer())
    assert caught.value.code == "invalid-choice"


@pytest.mark.parametrize(
    ("before", "now", "code", "words"),
    [
        ("budget=100", "budget=50", "incomparable-space", "budget"),
        (
            "baseline=TrialConfig(patches=100)",
            "baseline=TrialConfig(patches=9)",
            "incomparable-space",
            "baseline",
        ),
        ('["one", "two"]', '["one", "two", "three"]', "incompatible-parameter", "'kind'"),
        ("def suggest", "def propose", "space-failed", "NameError.*'suggest'"),
    ],
)
def test_what_cannot_be_mixed_is_not_taken(
    context: SearchContext, origin: Path, before: str, now: str, code: str, words: str
) -> None:
    origin.write_text(SPACE.replace(before, now))
    kept = context.paths.space.read_text()
    with pytest.raises(UserError, match=words):
        resolve_space_change(context, "update", Observer())
    assert context.paths.space.read_text() == kept


def test_a_search_that_lost_patience_goes_on_with_the_trials_that_are_asked_for(
    context: SearchContext,
) -> None:
    context.paths.space.write_text(SPACE.replace("trials=2", "trials=40, patience=1"))
    context = Workspace(context.home).open("mine").with_record(trials=40)
    assert context.is_complete, "the second improved nothing"
    finish(context)
    more = extend(context, 3)
    assert more.record.trials == 5, "two were begun, and three are added"
    assert not more.is_complete
    assert not Workspace(more.home).open("mine").is_complete


def test_a_search_that_lists_its_trials_has_an_end(tmp_path: Path, origin: Path) -> None:
    listed = SPACE.replace("Random()", 'Fixed(points=[{"kind": "one", "lr": 0.5}])')
    origin.write_text(listed.replace("trials=2, ", ""))
    record = SearchRecord(
        space="mine.py", store="", fingerprint="", split="auto", tracking_uri="", trials=1
    )
    context = Workspace(tmp_path / "home").create("listed", origin, record)
    with pytest.raises(UserError, match="'fixed' lists 1 trials") as caught:
        extend(context, 1)
    assert caught.value.code == "no-more-points"
    context.event_log.append(
        "start", trial="000", number=0, config=context.search.baseline.model_dump(mode="json")
    )
    context.event_log.append("trial_finished", trial="000", status="completed")
    finish(context)
    with pytest.raises(UserError, match="`hpsearch show listed") as caught:
        check_not_finished(context)
    assert "extend" not in str(caught.value), "which would be refused"


def test_a_cluster_that_does_not_answer_is_not_taken_down(context: SearchContext) -> None:
    for address, words in (
        (f"127.0.0.1:{free_port()}", "no Ray cluster answers at .*--address"),
        ("http://HEAD:8265", "is a dashboard.*HEAD:6379"),
    ):
        with pytest.raises(UserError, match=words):
            switch_cluster(context, address, Observer())
    assert switch_cluster(context, None, Observer()) is context
    assert Workspace(context.home).open("mine").record == context.record
