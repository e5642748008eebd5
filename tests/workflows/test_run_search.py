"""Names of new searches, failures of the study, and what happens after the last trial."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import ray
from mlflow import MlflowClient

from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.patch_store import PatchStore, write_store
from hpsearch.data.splits import TrialSplit
from hpsearch.errors import UserError
from hpsearch.execution.cross_validation import run_cross_validation
from hpsearch.execution.resumable_trial import CheckpointHooks
from hpsearch.execution.tuner import SessionResult
from hpsearch.promotion.final_evaluation import best_run, load_trained
from hpsearch.search import study
from hpsearch.search.outcome import to_result
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.workflows import promote_search, search_session
from hpsearch.workflows.finish_search import train_winner
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.run_search import run_search

from ..search_factory import plan

SPACE = """
from hpsearch.config import BatchHard, L2Net, PKSampler, RandomTriplets, TrialConfig
from hpsearch.search.search import Search

CONFIG = TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=240)
SEARCH = Search(suggest=lambda trial: CONFIG, budget=240, report_every=120, trials=1, num_folds=2,
                validation_points=8, baseline=CONFIG)
"""


class Heard(Observer):
    """Keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.mark.parametrize("limit", ["20 s", ""])
def test_trials_that_saved_before_the_session_ended_count_as_interrupted(
    tmp_path: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    context = plan(tmp_path / "home", tiny, SPACE, trials=3)

    def end_with_saved_trials(context: SearchContext) -> SessionResult:
        config = context.search.baseline.model_dump(mode="json")
        for number, status in enumerate(("completed", "interrupted", "interrupted")):
            trial = f"{number:03d}"
            context.event_log.append("start", trial=trial, number=number, config=config)
            context.event_log.append("trial_finished", trial=trial, status=status)
        return SessionResult(exhausted=True, limit=limit)

    monkeypatch.setattr(search_session.tuner, "run_session", end_with_saved_trials)
    monkeypatch.setattr(search_session, "start_ray", lambda *args, **more: None)
    monkeypatch.setattr(search_session, "monitor_head", lambda on_loss: nullcontext())
    heard = Heard()
    reason = search_session.run_trials(context, heard)
    if limit:
        assert reason is None, "the completed trial is the winner within the limit"
        assert "(trials interrupted: 2)" in heard.messages[-1]
    else:
        assert reason is not None
        assert reason.startswith("Interrupted")


def test_the_winner_of_a_search_in_folds_is_trained_on_the_whole_training_part(
    tmp_path: Path, tiny: PatchStore
) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    record = SearchRecord(
        space="space.py", store=str(tiny.path), fingerprint=tiny.fingerprint, split="auto",
        tracking_uri="", trials=1,
    )  # fmt: skip
    context = Workspace(tmp_path / "home").create("folds", tmp_path / "space.py", record)
    config, event_log = context.search.baseline, context.event_log
    event_log.append("start", trial="000", number=0, config=config.model_dump(mode="json"))
    for report in run_cross_validation(
        config, context.environment, CheckpointHooks(context.paths.trials_dir / "000"), k=2
    ):
        output = to_result(report, context.search.objective)
        fields = {key: output[key] for key in ("seen", "objective", "metrics")}
        event_log.append("report", trial="000", **fields)
    event_log.append("trial_finished", trial="000", status="completed")
    for _ in range(2):  # the second finds it trained
        train_winner(context, Observer())
        winner = load_trained(best_run(context.runs, context.search.objective), context)
        assert winner.progress.seen == 240
    assert [run.seen for run in context.runs] == [240], "the ledger keeps what the folds said"


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(
    "end",
    [
        lambda: os.kill(os.getpid(), signal.SIGTERM),
        lambda: fail(KeyboardInterrupt()),
        lambda: fail(RuntimeError("the study is locked")),
    ],
    ids=["SIGTERM", "Ctrl-C", "error"],
)
@pytest.mark.parametrize("kind", ["search", "promotion"])
def test_no_run_stays_running_however_a_session_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, end: Callable[[], None]
) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    record = SearchRecord(
        space="space.py", store="", fingerprint="", split="auto", tracking_uri="", trials=1
    )
    context = Workspace(tmp_path / "home").create("short", tmp_path / "space.py", record)
    config = context.search.baseline.model_dump(mode="json")
    dataset = {"name": "tiny", "fingerprint": "f", "path": "p", "profile": "{}"}
    context.event_log.append("search", params={}, dataset=dataset, direction="maximize", tags={})

    def train(*_: object, **__: object) -> None:
        context.event_log.append("start", trial="000", number=0, config=config)
        context.mlflow_sync().sync()
        end()

    sessions = {
        "search": lambda: search_session.run_session(context, Observer()),
        "promotion": lambda: promote_search._retrain(context, context, Observer()),
    }
    monkeypatch.setattr(search_session, "run_trials", train)
    before = signal.getsignal(signal.SIGTERM)
    search_session.install_termination_handlers()
    try:
        with pytest.raises((KeyboardInterrupt, RuntimeError)):
            sessions[kind]()
    finally:
        signal.signal(signal.SIGTERM, before)
    client = context.tracking().client()
    runs = client.search_runs([context.tracking().experiment_id()])
    assert [run.info.status for run in runs] == ["KILLED", "KILLED"], "the search and its trial"


class Recorder(Observer):
    """Keeps the messages of a workflow."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_a_file_is_not_searched_twice_unless_asked(tmp_path: Path) -> None:
    space, home, observer = tmp_path / "mine.py", tmp_path / "home", Recorder()
    space.write_text(SPACE)
    (home / "searches" / "mine").mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        run_search(space, home=home, observer=observer)
    assert caught.value.code == "search-exists"
    for words in ("holds no search", "--name", f"{home}/searches/mine"):
        assert words in str(caught.value)
    assert not observer.messages
    with pytest.raises(UserError) as caught:  # it gets as far as the study
        run_search(space, home=home, observer=observer, again=True, study="nonsense")
    assert caught.value.code == "study-unavailable"
    assert observer.messages == ["a search 'mine' exists already; this one is 'mine-2'"]


def four_sequences(path: Path, source: PatchStore) -> PatchStore:
    """Store of a few points of four sequences, which split into 2, 1 and 1."""
    everything = TrialSplit("all", train=source.names, validation=(), test=())
    found = []
    for number, name in enumerate(source.names[:4]):
        patches, rows = source.select([name], everything), np.arange(16 * 8)
        clean, noisy = (
            patches.gather(rows, noisy=n).reshape(-1, 16, 32, 32) for n in (False, True)
        )
        found.append(SequencePatches(f"s{number}", clean, noisy))
    return write_store(path, iter(found), meta=source.meta.model_copy(update={"test": ()}))


BATCH = "PKSampler(groups=99, views=2), loss=BatchHard()"


@pytest.mark.parametrize(
    ("small", "space", "code", "named"),
    [
        (True, SPACE.replace("num_folds=2,", ""), "part-too-small", "validation .*two sequences"),
        (True, SPACE, "part-too-small", "validation .*two sequences"),
        (False, SPACE.replace("RandomTriplets(batch=20)", BATCH), "too-few-points", "99"),
    ],
)
def test_data_that_no_trial_can_use_are_refused_before_ray_starts(
    tmp_path: Path, tiny: PatchStore, small: bool, space: str, code: str, named: str
) -> None:
    (tmp_path / "mine.py").write_text(space)
    store = four_sequences(tmp_path / "small.arrow", tiny) if small else tiny
    with pytest.raises(UserError, match=named) as caught:
        run_search(tmp_path / "mine.py", data=str(store.path), home=tmp_path / "home")
    assert caught.value.code == code
    assert not ray.is_initialized()
    assert not (tmp_path / "home" / "searches").exists()


class Locking(Observer):
    """Holds a database locked while trials are trained, as another program may."""

    def __init__(self, database: Path) -> None:
        self.database = database

    @contextmanager
    def training(self, context: SearchContext, *, kind: str = "trial") -> Iterator[None]:
        with sqlite3.connect(self.database, isolation_level=None) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield


def test_a_locked_study_ends_the_session_and_its_runs(
    tmp_path: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "LOCK_TIMEOUT_S", 0.1)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    space, database, home = tmp_path / "mine.py", tmp_path / "study.db", tmp_path / "home"
    space.write_text(SPACE)
    with pytest.raises(UserError, match="database is locked") as caught:
        run_search(
            space, data=str(tiny.path), study=f"sqlite:///{database}", cpus=1, home=home,
            observer=Locking(database),
        )  # fmt: skip
    assert caught.value.code == "study-unavailable"
    context = Workspace(home).open("mine")
    end = context.state.finish_event
    assert end is not None
    assert end["status"] == "interrupted"
    client = MlflowClient(context.tracking().uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {run.info.status for run in runs} == {"KILLED"}


SHARED = """
from dataclasses import dataclass
from hpsearch.search.objective import Objective

@dataclass(frozen=True, kw_only=True)
class Halved(Objective):
    def value(self, metrics, *, collapsed):
        return super().value(metrics, collapsed=collapsed) / 2
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # MLflow, on our signature
def test_workers_have_the_modules_that_a_space_imports(
    tmp_path: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "shared.py").write_text(SHARED)
    text = SPACE.replace("num_folds=2,", "objective=Halved(),")
    (tmp_path / "mine.py").write_text(f"from shared import Halved\n{text}")
    result = run_search(tmp_path / "mine.py", data=str(tiny.path), cpus=1, home=tmp_path / "home")
    assert result.winner is not None
    last = result.winner.reports[-1]
    assert last["objective"] == last["metrics"]["val/mAP"] / 2
