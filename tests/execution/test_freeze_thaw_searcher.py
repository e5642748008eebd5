"""A searcher that pauses trials, driven as the supervisor drives it."""

import json
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from hpsearch.execution.freeze_thaw_searcher import FreezeThawSearcher
from hpsearch.execution.worker_messages import Reported
from hpsearch.search.gp_sampler import GPSampler
from hpsearch.search.requests import SearchRequests
from hpsearch.search.search_context import SearchContext
from hpsearch.search.space_file import load_search
from hpsearch.search.study import open_study
from hpsearch.search.trial_queue import started_trials
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.training.trial import CHECKPOINT_FILE
from hpsearch.workflows.extend_budget import request_continuations, trials_to_continue

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.pruners import FreezeThaw
from hpsearch.search.samplers import GP
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.0, 1.0)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials={trials},
                sampler=GP(startup_trials=3), pruner=FreezeThaw(), {more}
                baseline=TrialConfig(patches=100))
"""


class Driver:
    """One worker; the value of a trial is its ``lr``, which it reaches as its budget is used up.

    Args:
        folder: of the search.
        more: settings of the search.
    """

    def __init__(self, folder: Path, *, trials: int = 8, more: str = "") -> None:
        folder.mkdir()
        self.folder, self.space, self.trials = folder, folder / "space.py", trials
        self.space.write_text(SPACE.format(trials=trials, more=more))
        self.seen, self.paused = Counter[str](), set[str]()
        self.log: list[str] = []
        """What happened to which trial; a start only if another trial was trained before."""

    def run(self, reports: int = 10_000) -> None:
        """A session, until no trial is suggested or so many reports have come."""
        self.searcher = searcher = FreezeThawSearcher(
            self.folder, space=self.space, trials=self.trials, paused=frozenset(self.paused)
        )
        for attempt in map(str, range(10_000)):
            found = searcher.suggest(attempt)
            if not isinstance(found, dict):
                return
            name, rate = found["id"], found["trial"]["optimizer"]["lr"]
            self.paused.discard(name)
            if self.log[-1:] not in ([f"{name} report"], [f"{name} start"]):
                self.log.append(f"{name} start")
            if self.seen[name]:
                self._report(searcher, attempt, name, rate)
                assert not searcher.should_pause(attempt), "a repeated report decides nothing"
            while True:
                if reports == 0:
                    return
                reports -= 1
                self.seen[name] += 10
                self.log.append(f"{name} report")
                message = self._report(searcher, attempt, name, rate)
                if self.seen[name] == 100:
                    searcher.finish(attempt, "completed", "", message)
                    break
                if searcher.should_pause(attempt):
                    searcher.pause(attempt)
                    searcher.pause(attempt)  # the second time changes nothing
                    self.paused.add(name)
                    self.log.append(f"{name} pause")
                    break

    def _report(
        self, searcher: FreezeThawSearcher, attempt: str, name: str, rate: float
    ) -> Reported:
        message = Reported(self.seen[name], rate * (0.5 + self.seen[name] / 200))
        searcher.record_report(attempt, message)
        return message

    @property
    def trials_of_study(self) -> list[FrozenTrial]:
        study = open_study(self.folder, search=load_search(self.space))
        return started_trials(study.trials)


def test_the_best_trial_is_trained_to_the_end_and_few_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(tmp_path / "one")
    driver.run()
    monkeypatch.setattr(GPSampler, "outlook", lambda *_, **__: pytest.fail("nothing has changed"))
    assert driver.searcher.suggest("once more") == FreezeThawSearcher.FINISHED
    trials = driver.trials_of_study
    assert len(trials) == 8
    assert driver.log[:6] == [
        f"{n:03d} {w}" for n in range(2) for w in ("start", "report", "pause")
    ]
    best = max(trials, key=lambda trial: trial.params["lr"])
    assert best.state == TrialState.COMPLETE
    for number, trial in enumerate(trials):
        steps = list(trial.intermediate_values)
        assert steps == list(range(10, steps[-1] + 10, 10)), "no report is left out"
        assert (trial.state == TrialState.RUNNING) == (f"{number:03d}" in driver.paused)
    assert sum(driver.seen.values()) < 500, "of 800 patches"
    assert any(driver.log.count(f"{name} start") > 1 for name in driver.seen), "some was resumed"


@pytest.mark.parametrize("cut", [1, 9])
def test_a_search_that_is_interrupted_pauses_and_resumes_as_one_that_is_not(
    tmp_path: Path, cut: int
) -> None:
    whole, parts = Driver(tmp_path / "one"), Driver(tmp_path / "two")
    whole.run()
    parts.run(cut)
    parts.run()
    assert parts.log == whole.log
    assert parts.paused == whole.paused


def test_further_seeds_and_given_points_come_before_paused_trials(tmp_path: Path) -> None:
    more = "seeds_per_point=2, initial_points=[{'lr': 0.5}, {'lr': 0.1}],"
    driver = Driver(tmp_path / "one", trials=6, more=more)
    driver.run(4)
    rates = [trial.params["lr"] for trial in driver.trials_of_study]
    assert rates[:4] == [0.5, 0.5, 0.1, 0.1]
    assert driver.paused >= {"000", "001", "002"}, "for the next of them"


def test_trials_that_train_on_come_before_paused_ones(tmp_path: Path) -> None:
    space = tmp_path / "one.py"
    space.write_text(SPACE.format(trials=2, more=""))
    record = SearchRecord(
        space="one.py", store="", fingerprint="", split="auto", tracking_uri="", trials=2
    )
    context = Workspace(tmp_path / "home").create("one", space, record)
    searcher = searcher_of(context)
    for attempt in ("000", "001"):
        report(context, searcher, attempt, seen=100)
        searcher.finish(attempt, "completed", "", Reported(100, 0.5, "completed"))
        context.event_log.append("trial_finished", trial=attempt, status="completed")
        folder = context.paths.trials_dir / attempt
        folder.mkdir(parents=True)
        (folder / CHECKPOINT_FILE).write_text(attempt)
    longer = request_continuations(context, 200, trials_to_continue(context, 200))
    searcher = searcher_of(longer)
    report(longer, searcher, "002", seen=110)
    assert searcher.should_pause("002"), "the other one that trains on has not begun"
    searcher.pause("002")
    report(longer, searcher, "003", seen=110)
    assert {run.id: run.parent for run in longer.runs[2:]} == {"002": "000", "003": "001"}
    searcher.finish("003", "completed", "", Reported(200, 0.1, "completed"))
    assert searcher.suggest("again")["id"] == "002", "it may still become the best"


def searcher_of(context: SearchContext) -> FreezeThawSearcher:
    found = FreezeThawSearcher(
        context.paths.folder, space=context.paths.space, search=context.search,
        trials=context.record.trials,
    )  # fmt: skip
    found.requests = SearchRequests(context.event_log)
    return found


def report(
    context: SearchContext, searcher: FreezeThawSearcher, attempt: str, *, seen: int
) -> None:
    """Start the next trial as an attempt with its own id as name, and report once."""
    found = searcher.suggest(attempt)
    assert found["id"] == attempt
    drawn = json.loads(found["drawn"])
    fields = {"number": found["number"], "config": found["trial"], "drawn": drawn}
    context.event_log.append("start", trial=attempt, **fields)
    context.event_log.append("report", trial=attempt, seen=seen, objective=0.5, metrics={})
    searcher.record_report(attempt, Reported(seen, 0.5))
