"""The end of a search: its results are kept first, and each step can be taken again."""

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.promotion.final_evaluation import (
    best_run,
    evaluate_on_test,
    load_scores,
    load_trained,
    scoring_ahead,
    train_baseline,
)
from hpsearch.promotion.score_cache import ScoreCache, model_fingerprint
from hpsearch.search.outcome import to_result
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking import relocation
from hpsearch.tracking.mlflow_errors import (
    TRANSIENT_CODES,
    MlflowUnavailableError,
    translate_mlflow_errors,
)
from hpsearch.workflows import finish_search
from hpsearch.workflows.observer import Observer, SearchResult
from hpsearch.workflows.resume_search import check_not_finished
from hpsearch.workflows.run_search import log_search_started
from hpsearch.workflows.search_session import run_session

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning",
    "ignore::UserWarning",
)  # fmt: skip

SPACE = """
from hpsearch.config import L2Net, RandomTriplets, TrialConfig
from hpsearch.search.search import Search

CONFIG = TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=120)
SEARCH = Search(suggest=lambda trial: CONFIG, budget=120, report_every=120, trials=2,
                initial_points=({},), validation_points=8, baseline=CONFIG)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> Path:
    """Home of a search whose two trials have ended, and nothing else has begun."""
    home = tmp_path_factory.mktemp("trained")
    (home / "space.py").write_text(SPACE)
    record = SearchRecord(
        space="space.py", store=str(tiny.path), fingerprint=tiny.fingerprint, split="auto",
        tracking_uri="", trials=2,
    )  # fmt: skip
    context = Workspace(home).create("ending", home / "space.py", record)
    log_search_started(context, context.search, tiny)
    for number in range(2):
        config = context.search.baseline.model_copy(update={"seed": number})
        trial, log = f"{number:03d}", context.event_log
        log.append("start", trial=trial, number=number, config=config.model_dump(mode="json"))
        hooks = CheckpointHooks(context.paths.trials_dir / trial)
        for report in run_with_checkpoints(config, context.environment, hooks):
            found = to_result(report, context.search.objective)
            fields = {key: found[key] for key in ("seen", "metrics")}
            log.append("report", trial=trial, objective=0.5 + 0.1 * number, **fields)
        log.append("trial_finished", trial=trial, status="completed")
    return home


@pytest.fixture
def context(trained: Path, tmp_path: Path) -> SearchContext:
    shutil.copytree(trained, tmp_path / "home")
    return Workspace(tmp_path / "home").open("ending")


class Recorder(Observer):
    """Keeps what a workflow shows, in order; ``at`` is called with the name of each."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def at(self, moment: str) -> None:
        self.seen.append(moment)

    def message(self, text: str) -> None:
        self.at("again" if "trying again" in text else "figures" if "figures" in text else "")

    def warning(self, text: str) -> None:
        self.at(text)

    def show_scores(self, result: SearchResult) -> None:
        assert load_scores(result.context).keys() == result.test_scores.keys()
        self.at("scores")

    def show_registration(self, result: SearchResult) -> None:
        self.at("registration")


class Locking(Recorder):
    """Locks MLflow's database when the scores are shown, and releases it at the n-th failure."""

    def __init__(self, database: Path, failures: int) -> None:
        super().__init__()
        self.failures = failures
        self.connection = sqlite3.connect(database, isolation_level=None)

    def at(self, moment: str) -> None:
        super().at(moment)
        if moment == "scores":
            self.connection.execute("BEGIN EXCLUSIVE")
        if self.seen.count("again") == self.failures and self.connection.in_transaction:
            self.connection.rollback()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow and we wait a tenth of a second for a lock of SQLite, instead of twenty seconds."""
    monkeypatch.setattr(relocation, "LOCK_WAIT_S", 0.1)

    def shorten(
        connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool
    ) -> tuple[str, Any]:
        waits = statement.startswith("PRAGMA busy_timeout")
        return ("PRAGMA busy_timeout = 100" if waits else statement), parameters

    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorten)


@pytest.mark.usefixtures("impatient")
def test_a_locked_database_delays_the_registration_and_resume_makes_up_for_it(
    context: SearchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.mlflow_sync().sync()
    context.registry().versions()  # opened now, since MLflow tries for minutes to open its tables
    monkeypatch.setattr(finish_search, "RETRY_WAITS_S", (0.0,))
    observer = Locking(context.home / "mlflow.db", failures=9)
    result = run_session(context, observer)
    assert observer.seen.count("again") == 1
    assert result.status == "completed"
    assert result.registration is None
    assert "locked" in result.reason
    assert "hpsearch resume ending" in result.reason
    assert context.state.steps_left == ("registration", "figures")
    check_not_finished(context)  # resume may finish it
    observer.connection.close()
    observer = Locking(context.home / "mlflow.db", failures=1)
    result = run_session(context, observer)
    steps = [moment for moment in observer.seen if moment]
    assert steps == ["scores", "again", "registration", "figures"]
    assert result.registration is not None
    assert context.state.steps_left == ()
    assert len(context.registry().versions()) == 1
    with pytest.raises(UserError, match="has finished"):
        check_not_finished(context)
    names = ["001", "initial point", "baseline", "pixels 16×16", "RootSIFT"]
    assert list(load_scores(context)) == names


@pytest.mark.parametrize(
    ("number", "wanted", "left"),
    [
        (signal.SIGINT, "scores", ("registration", "figures")),
        (signal.SIGTERM, "figures", ("figures",)),
    ],
)
def test_a_signal_after_the_scores_loses_nothing_and_resume_finishes(
    context: SearchContext, number: signal.Signals, wanted: str, left: tuple[str, ...]
) -> None:
    class Signaling(Recorder):
        def at(self, moment: str) -> None:
            super().at(moment)
            if moment == wanted:
                os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            run_session(context, Signaling())
    finally:
        signal.signal(signal.SIGINT, before)
    assert context.state.steps_left == left
    check_not_finished(context)
    result = run_session(context, Recorder())
    assert result.registration is not None
    assert context.state.steps_left == ()
    assert len(context.registry().versions()) == 1


def test_scoring_in_another_thread_changes_neither_scores_nor_baseline(
    context: SearchContext, trained: Path, tmp_path: Path
) -> None:
    found = []
    shutil.copytree(trained, tmp_path / "other")
    searches = ((context, True), (Workspace(tmp_path / "other").open("ending"), False))
    for context, ahead in searches:
        winner = best_run(context.runs, context.objective)
        with scoring_ahead(context, winner) if ahead else nullcontext():
            baseline = train_baseline(context)
        network = load_trained(winner, context).pipeline()
        assert ScoreCache.for_search(context).is_cached(network, noisy=True) == ahead
        scores = evaluate_on_test(context, winner, baseline)
        weights = model_fingerprint(load_trained(baseline, context).pipeline())
        found.append((weights, {name: one.to_dict() for name, one in scores.items()}))
    assert found[0] == found[1]


LOCKED = sqlite3.OperationalError("database is locked")


@pytest.mark.parametrize("error", [OperationalError("SELECT 1", {}, LOCKED), LOCKED])
def test_an_error_of_the_database_itself_is_one_sentence(error: Exception) -> None:
    caught = pytest.raises(MlflowUnavailableError, match="is locked by another process")
    with caught as found, translate_mlflow_errors("sqlite:////home/mlflow.db"):
        raise error
    assert found.value.code in TRANSIENT_CODES
