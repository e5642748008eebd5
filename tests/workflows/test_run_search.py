"""What happens between the last trial and the judging of the winner."""

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.cross_validation import run_cross_validation
from hpsearch.execution.resumable_trial import CheckpointHooks
from hpsearch.execution.tuner import SessionResult
from hpsearch.promotion.final_evaluation import best_run, load_trained
from hpsearch.search.outcome import to_result
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.workflows import promote_search, search_session
from hpsearch.workflows.finish_search import train_winner
from hpsearch.workflows.observer import Observer

from ..search_factory import plan

SPACE = """
from hpsearch.config import L2Net, RandomTriplets, TrialConfig
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
    for module in (search_session, promote_search):
        monkeypatch.setattr(module, "run_trials", train)
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
