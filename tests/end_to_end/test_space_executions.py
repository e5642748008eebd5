"""The user's space file is executed once a command, in the driver, and never by a worker."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hpsearch.cli import app
from hpsearch.data.patch_store import PatchStore
from hpsearch.search.workspace import Workspace

SPACE = """
import os
from pathlib import Path
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.samplers import Random
from hpsearch.search.search import Search

with Path({executions!r}).open("a") as file:
    file.write(f"{{os.getpid()}}\\n")

SMALL = dict(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=240)

def suggest(trial):
    return TrialConfig(optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-3)), **SMALL)

SEARCH = Search(suggest=suggest, budget=240, report_every=120, trials=2, sampler=Random(),
                baseline=TrialConfig(**SMALL), validation_points=4)
"""


@pytest.fixture
def executions(tmp_path: Path) -> Callable[[], int]:
    """Count of executions since the last call, in whatever process."""
    path = tmp_path / "executions"

    def count() -> int:
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return len(lines)

    return count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # MLflow, on our signature
def test_once_a_command(
    tmp_path: Path,
    tiny: PatchStore,
    executions: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    space, home = tmp_path / "counted.py", tmp_path / "home"
    space.write_text(SPACE.format(executions=str(tmp_path / "executions")))

    def run(*words: object) -> None:
        app([*map(str, words), "--home", str(home)], standalone_mode=False)

    def num_trials() -> int:
        return sum(run.kind == "trial" for run in Workspace(home).open("counted").runs)

    run(
        "search",
        space,
        "--data",
        tiny.path,
        "--cpus",
        1,
        "--max-concurrent-trials",
        1,
        "--patches",
        120,
    )
    assert executions() == 1
    assert num_trials() == 1, "the limit leaves one to the resume"
    run("resume", "counted", "--patches", 10_000)
    assert executions() == 1
    assert num_trials() == 2
    run("report", "counted")
    assert executions() == 1
    run("promote", "counted", "--dry-run")
    assert executions() == 1
    run("promote", "counted", "--top", 1, "--seeds", 1)
    assert executions() == 1
