"""What tests share: one tiny patch set from real photographs, built once a session."""

import os
import secrets
import sys
from pathlib import Path

# as in an activated environment, in which commands are printed by the program's name
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "token")  # whatever Ray a test starts, nobody else enters it
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import pytest

from hpsearch.data.builtin_sets import open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.trial import TrialEnvironment

from .processes import forget_mlflow_server

LONGEST = ("test_documentation.py", "test_main_job.py", "test_listeners.py", "test_promote.py")
"""Files that are begun first, so that at the end no process waits for another's last file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, then with those that have slow tests."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        name = item.path.name
        return LONGEST.index(name) if name in LONGEST else len(LONGEST) + (item.path not in slow)

    items.sort(key=rank)


@pytest.fixture(scope="module", autouse=True)
def forget_servers() -> None:
    """No module meets the server of an earlier one."""
    forget_mlflow_server()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    """Six photographs at half size, 32 points each."""
    folder = Path(os.environ.get("HPSEARCH_TEST_DATA") or tmp_path_factory.mktemp("data"))
    return PatchStore.open(open_builtin("tiny", folder))


@pytest.fixture
def job(tiny: PatchStore, tmp_path: Path) -> TrialEnvironment:
    """What the trials of a small search on these have in common."""
    return TrialEnvironment(
        store=tiny, split=tiny.split(), artifacts=ArtifactCache(str(tmp_path / "artifacts")),
        report_every=60, validation_points=8,
    )  # fmt: skip
