"""What a search prints of its trials while it runs."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from hpsearch.config import TrialConfig
from hpsearch.console.live_progress import LiveProgress
from hpsearch.execution.shutdown import in_notebook
from hpsearch.search.search import Search
from hpsearch.tracking.event_log import EventLog


def test_a_trial_that_goes_on_and_one_that_restarts_from_scratch_say_why(tmp_path: Path) -> None:
    event_log, output = EventLog(tmp_path / "ledger.jsonl"), io.StringIO()
    config = TrialConfig()
    search = Search(
        suggest=lambda trial: config, baseline=config, trials=2, budget=100, report_every=10
    )
    with LiveProgress(event_log, search, Console(file=output), 2):
        for event, fields in (
            ("start", {"number": 7, "config": config.model_dump(mode="json")}),
            ("report", {"seen": 1_200, "objective": 0.5, "metrics": {"val/mAP": 0.5}}),
            ("worker_failed", {"reason": "its machine went away"}),
            ("report", {"seen": 1_200, "objective": 0.5, "metrics": {"val/mAP": 0.5}}),
            ("restarted_from_scratch", {"reason": "its checkpoint was damaged"}),
        ):
            event_log.append(event, trial="007", **fields)
    started, reported, crashed, restart = output.getvalue().splitlines()
    assert " 007 started " in started
    assert "1,200 patches  mAP 0.500  0 of 2 trials · best last val/mAP 0.500" in reported
    assert "(trial 007)" in reported
    assert crashed.endswith(" 007 resumed    from 1,200 patches; its machine went away")
    assert restart.endswith(" 007 restarts from scratch; its checkpoint was damaged")


def test_the_best_score_so_far_counts_whether_or_not_its_trial_has_ended(
    tmp_path: Path,
) -> None:
    event_log, output = EventLog(tmp_path / "ledger.jsonl"), io.StringIO()
    config = TrialConfig()
    search = Search(
        suggest=lambda trial: config, baseline=config, trials=4, budget=100, report_every=10
    )
    reports = {
        "000": (0.99, {"val/mAP": 0.99, "val/collapsed": 1.0}),
        "001": (0.7, {"val/mAP": 0.7}),
        "002": (0.805, {"val/mAP": 0.805}),
        "003": (0.6, {"val/mAP": 0.6}),
    }
    with LiveProgress(event_log, search, Console(file=output), 4):
        for number, (trial, (value, metrics)) in enumerate(reports.items()):
            event_log.append(
                "start", trial=trial, number=number, config=config.model_dump(mode="json")
            )
            event_log.append("report", trial=trial, seen=10, objective=value, metrics=metrics)
            if trial in ("001", "003"):
                event_log.append("trial_finished", trial=trial, status="completed")
    lines = [line for line in output.getvalue().splitlines() if " of 4 trials" in line]
    assert "no score yet" in lines[0]
    assert "best last val/mAP 0.700 (trial 001)" in lines[1]
    assert all("best last val/mAP 0.805 (trial 002)" in line for line in lines[2:])
    assert len(lines) == 4


class Cell:
    """What IPython shows in the output of a cell: the latest HTML of each display."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def HTML(self, text: str) -> str:
        return text

    def display(self, html: str, *, display_id: bool) -> "Cell":
        assert display_id
        self.shown.append(html)
        return self

    def update(self, html: str) -> None:
        self.shown[-1] = html


def test_a_notebook_has_one_table_that_changes_and_no_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, output = Cell(), io.StringIO()
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", shell)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", cell)  # type: ignore[arg-type]
    event_log, config = EventLog(tmp_path / "ledger.jsonl"), TrialConfig()
    search = Search(
        suggest=lambda trial: config, baseline=config, trials=2, budget=100, report_every=10
    )
    with LiveProgress(event_log, search, Console(file=output), 2):
        assert "0 of 2 trials" in cell.shown[0]
        event_log.append("start", trial="7", number=7, config=config.model_dump(mode="json"))
        event_log.append("report", trial="7", seen=1_200, objective=0.5, metrics={"val/mAP": 0.5})
        event_log.append("trial_finished", trial="7", status="completed", reason="<b>")
    (table,) = cell.shown
    assert "1 of 2 trials" in table
    assert "best last val/mAP 0.500 (trial 007)" in table
    assert table.startswith("<pre")
    assert output.getvalue() == ""


def test_no_notebook_is_seen_where_ipython_is_only_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # type: ignore[arg-type]
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()
