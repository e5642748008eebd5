"""Callbacks follow the event log, in order, and cannot end a search."""

from pathlib import Path

import pytest

from hpsearch.config import TrialConfig
from hpsearch.data.patch_store import PatchStore
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.run_state import Run
from hpsearch.workflows.callbacks import Callback, with_callbacks
from hpsearch.workflows.observer import Observer, SearchResult

from ..search_factory import plan

SPACE = """
from hpsearch.config import TrialConfig
from hpsearch.search.search import Search
SEARCH = Search(suggest=lambda trial: TrialConfig(patches=900), budget=900, report_every=100,
                trials=3, baseline=TrialConfig(patches=900))
"""


class Recording(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def on_search_start(self, context: SearchContext) -> None:
        self.calls.append(("search", context.name))

    def on_trial_start(self, run: Run) -> None:
        self.calls.append(("start", run.id))

    def on_report(self, run: Run) -> None:
        self.calls.append(("report", run.id, run.seen, run.last))

    def on_trial_end(self, run: Run) -> None:
        self.calls.append(("end", run.id, run.status))

    def on_search_end(self, result: SearchResult | None, error: BaseException | None) -> None:
        self.calls.append(("over", result, str(error)))


class Raising(Callback):
    def __init__(self) -> None:
        self.count = 0

    def on_trial_start(self, run: Run) -> None:
        self.count += 1
        raise RuntimeError("on purpose")


class Messages(Observer):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def context(tmp_path: Path, tiny: PatchStore) -> SearchContext:
    return plan(tmp_path / "home", tiny, SPACE, trials=3)


def log_trial(context: SearchContext, number: int, status: str, value: float | None = None) -> None:
    """Append a whole trial to the event log."""
    log, name = context.event_log, f"{number:03d}"
    config = TrialConfig(patches=900).model_dump(mode="json")
    log.append("start", trial=name, number=number, config=config)
    if value is not None:
        log.append("report", trial=name, seen=900, objective=value, metrics={"val/mAP": value})
    log.append("trial_finished", trial=name, status=status)


def test_they_are_called_in_the_order_of_the_log(context: SearchContext) -> None:
    log_trial(context, 0, "completed", 0.5)  # of an earlier session
    recording, raising, inner = Recording(), Raising(), Messages()
    observer = with_callbacks(inner, [raising, recording])
    with observer.training(context):
        log_trial(context, 1, "completed", 0.7)
        log_trial(context, 2, "failed")
    observer.search_ended(None, KeyboardInterrupt("Ctrl-C"))
    assert recording.calls == [
        ("search", "far"),
        ("start", "001"), ("report", "001", 900, {"val/mAP": 0.7}), ("end", "001", "completed"),
        ("start", "002"), ("end", "002", "failed"),
        ("over", None, "Ctrl-C"),
    ]  # fmt: skip
    assert raising.count == 1, "a callback that raised is not called any more"
    assert inner.warnings == [
        "callback Raising.on_trial_start raised RuntimeError (on purpose); it is not called any "
        "more"
    ]


def test_a_baseline_is_no_trial(context: SearchContext) -> None:
    recording = Recording()
    with with_callbacks(None, [recording]).training(context, kind="baseline"):
        pass
    assert recording.calls == []
