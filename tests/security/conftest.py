"""Commands as a user gives them, in this process, and a search on disk that an attacker changes."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpsearch.cli.app import main
from hpsearch.config import L2Net, TrialConfig
from hpsearch.data.patch_store import PatchStore
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace

CONFIG = TrialConfig(descriptor=L2Net(width=0.125), patches=100)
SPACE = """
from hpsearch.config import L2Net, SGD, TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    lr = trial.suggest_float("lr", 0.01, 1)
    return TrialConfig(descriptor=L2Net(width=0.125), optimizer=SGD(lr=lr), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=50, trials=2, data="tiny",
    baseline=TrialConfig(patches=100))
"""


@dataclass(frozen=True)
class Refusal:
    """How a command ended, and what it said."""

    code: object
    said: str

    def is_one_sentence(self, *words: str) -> None:
        """A refusal in one line, which names what is wrong; no traceback."""
        assert self.code == 2, self.said
        lines = [line for line in self.said.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.said
        assert "Traceback" not in self.said, self.said
        for word in words:
            assert word in lines[0], self.said


Command = Callable[..., Refusal]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``hpsearch WORDS``; what is raised is a traceback to the user, and fails the test."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*words: object) -> Refusal:
        monkeypatch.setattr(sys, "argv", ["hpsearch", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Refusal(ended.value.code, capsys.readouterr().err)

    return run


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A space of two trials."""
    path = tmp_path / "space.py"
    path.write_text(SPACE)
    return path


@pytest.fixture
def searched(tiny: PatchStore, space: Path, tmp_path: Path) -> SearchContext:
    """A search whose event log tells of one trial that completed."""
    workspace = Workspace(tmp_path / "home")
    record = SearchRecord(
        space="space.py", store=str(tiny.path.absolute()), fingerprint=tiny.fingerprint,
        split="auto", tracking_uri=workspace.tracking().uri, trials=2,
    )  # fmt: skip
    context = workspace.create("s", space, record)
    dataset = {"name": "tiny", "fingerprint": tiny.fingerprint, "path": "x", "profile": "{}"}
    event_log = context.event_log
    event_log.append("search", params={"budget": 100}, dataset=dataset, direction="maximize")
    config = json.loads(CONFIG.model_dump_json())
    event_log.append("start", trial="000", number=0, config=config)
    event_log.append("report", trial="000", seen=100, objective=0.5, metrics={"val/mAP": 0.5})
    event_log.append("trial_finished", trial="000", status="completed", reason="")
    return context
