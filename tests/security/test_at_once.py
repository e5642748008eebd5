"""Two commands that work on one search at once: one does the work, the other says why not."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.tracking.mlflow_tags import default_uri
from hpsearch.workflows.run_search import log_search_started

from ..processes import run
from ..search_factory import plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.pruners import NoPruner
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=480)

SEARCH = Search(suggest=suggest, budget=480, report_every=240, validation_points=8, trials=2,
                pruner=NoPruner(),
                baseline=TrialConfig(descriptor=L2Net(width=0.125), patches=480))
"""


def twice(home: Path, *words: object) -> list[str]:
    """What the one that was refused says, after both have ended."""
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: run(*words, HPSEARCH_HOME=str(home)), range(2))
    codes = sorted([first.returncode, second.returncode])
    assert codes == [0, 2], (first.stdout + first.stderr, second.stdout + second.stderr)
    return [done.stderr for done in (first, second) if done.returncode == 2]


def test_two_resumes_and_two_promotions_do_the_work_once(tmp_path: Path, tiny: PatchStore) -> None:
    home = tmp_path / "home"
    context = plan(home, tiny, SPACE, trials=2, tracking_uri=default_uri(home))
    log_search_started(context, context.search, tiny)
    (said,) = twice(home, "resume", "far")
    assert "running in another process" in said
    events = context.event_log.events()
    ended = [event["trial"] for event in events if event["event"] == "trial_finished"]
    assert sorted(ended) == sorted({*ended}), "each has ended once"
    assert sum(run.status == "completed" for run in context.runs if run.kind == "trial") == 2
    (said,) = twice(home, "promote", "far", "--top", 1, "--seeds", 1)
    assert "running in another process" in said or "exists already" in said
    client = mlflow.MlflowClient(default_uri(home), default_uri(home))
    assert len(client.search_model_versions("name = 'patch-descriptor'")) == 2
