"""A search on XLA through Ray: the real command, on PJRT's CPU device where there is no TPU."""

import json
import os
import time
from pathlib import Path

import pytest

from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.run_state import runs_from

from ..processes import run

pytest.importorskip("torch_xla")
pytestmark = pytest.mark.timeout(600)

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.pruners import NoPruner
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=480)

SEARCH = Search(suggest=suggest, budget=480, report_every=240, validation_points=8, trials=2,
                data="tiny", pruner=NoPruner(),
                baseline=TrialConfig(descriptor=L2Net(width=0.125), patches=480))
"""


def test_a_search_trains_on_xla_and_ends_with_a_registered_model(tmp_path: Path, capsys) -> None:
    """Without TPU chips a trial holds a core: no chips must be asked for."""
    space = tmp_path / "small.py"
    space.write_text(SPACE)
    words = ["search", str(space), "--home", str(tmp_path / "home"), "--cpus", "1"]
    words += ["--device", "xla", "--tpus-per-trial", "0"]
    began, before = time.monotonic(), os.times()
    ended = run(*words, timeout=570, PJRT_DEVICE="CPU", COLUMNS="120")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Registered patch-descriptor version 1" in ended.stdout
    event_log = EventLog(tmp_path / "home" / "searches" / "small" / "ledger.jsonl")
    runs = [run for run in runs_from(event_log.events()) if run.kind == "trial"]
    assert [run.status for run in runs] == ["completed"] * 2
    assert [[report["seen"] for report in run.reports] for run in runs] == [[240, 480]] * 2
    record = (tmp_path / "home" / "searches" / "small" / "search.json").read_text()
    assert json.loads(record)["resources"]["device"] == "xla"
    spent = os.times()
    own = spent.children_user + spent.children_system
    own -= before.children_user + before.children_system
    with capsys.disabled():
        print(
            f"\n{ended.stdout}\n{time.monotonic() - began:.0f} s; the driver {own:.0f} s of a core"
        )
