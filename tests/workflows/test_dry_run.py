"""Dry runs: what a search would do and cost, and the refusals that it would meet."""

from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.execution import ray_runtime
from hpsearch.search.pruners import ASHA, NoPruner
from hpsearch.search.search import Search
from hpsearch.search.space_file import load_search
from hpsearch.workflows import dry_run as module
from hpsearch.workflows.dry_run import dry_run, expected_share
from hpsearch.workflows.search_plan import SearchOptions

from ..servers import free_port

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.pruners import ASHA
from hpsearch.search.search import Search

CONFIG = dict(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=900)

def suggest(trial):
    return TrialConfig(optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), **CONFIG)

SEARCH = Search(suggest=suggest, budget=900, report_every=100, trials=8, validation_points=8,
                pruner=ASHA(reduction_factor=3), baseline=TrialConfig(**CONFIG))
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "far.py"
    path.write_text(SPACE)
    return path


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four CPUs without Ray."""
    monkeypatch.setattr(module, "prepare_cluster", lambda plan, observer: None)
    monkeypatch.setattr(ray_runtime, "node_resources", lambda: [{"CPU": 4.0}])
    monkeypatch.setattr(ray_runtime, "stop_ray", lambda: None)


def test_it_names_what_the_search_would_do(
    space: Path, cluster: None, tiny: PatchStore, tmp_path: Path
) -> None:
    options = SearchOptions(data=str(tiny.path), overrides={"trials": 6, "descriptor.width": 0.25})
    found = dry_run(space, options, home=tmp_path / "home")
    assert (found.plan.name, found.plan.record.trials, found.concurrent) == ("far", 6, 4)
    assert found.patches == 6 * 900
    assert found.rungs == (100, 300)
    assert {config.descriptor.width for config in found.examples} == {0.25}
    assert found.seconds_per_trial > 0
    share = expected_share(found.plan.search, found.rungs, 6)
    assert 6 / 4 * share < 1
    assert found.expected_seconds == found.seconds_per_trial, "one trial is trained to the end"
    assert found.memory_bytes > 2**20
    assert not list((tmp_path / "home").rglob("*")), "nothing was written"


def test_limits_bound_what_it_estimates(
    space: Path, cluster: None, tiny: PatchStore, tmp_path: Path
) -> None:
    def estimate(**limits: float) -> tuple[int, float, float]:
        options = SearchOptions(data=str(tiny.path), overrides={"trials": 64}, limits=limits)
        found = dry_run(space, options, home=tmp_path / "home")
        return found.patches, found.expected_seconds, found.seconds_per_trial

    patches, expected, whole = estimate(patches=1_800)  # two budgets, four trials at once
    assert patches == 1_800
    assert expected == pytest.approx(whole / 2)
    assert estimate(seconds=1e-6)[1] == 1e-6


def test_an_mlflow_that_does_not_answer_is_refused(
    space: Path, cluster: None, tiny: PatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"http://127.0.0.1:{free_port()}"
    options = SearchOptions(data=str(tiny.path), tracking_uri=uri)
    with pytest.raises(UserError, match=f"{uri} does not answer") as error:
        dry_run(space, options, home=tmp_path / "home")
    assert error.value.code == "mlflow-unreachable"


def test_a_trial_that_fits_nowhere_is_refused(
    space: Path, cluster: None, tiny: PatchStore, tmp_path: Path
) -> None:
    options = SearchOptions(data=str(tiny.path), resources={"cpus": 64})
    with pytest.raises(UserError, match="requests 64 CPUs"):
        dry_run(space, options, home=tmp_path / "home")


def test_a_third_of_the_trials_continues_at_each_rung(space: Path) -> None:
    search = load_search(space)
    # all to 100, a third of them to 300, a ninth of them to 900
    assert expected_share(search, (100, 300), 9) == pytest.approx((100 + 200 / 3 + 600 / 9) / 900)
    assert expected_share(search.with_changes(pruner=NoPruner()), (), 9) == 1
    half = search.with_changes(pruner=ASHA(reduction_factor=2))
    assert isinstance(half, Search)
    assert expected_share(half, (450,), 9) == pytest.approx(0.75)


def test_the_best_of_few_trials_continues_at_each_rung(space: Path) -> None:
    # all three to 100, the best of them to 300 and to 900
    share = expected_share(load_search(space), (100, 300), 3)
    assert share == pytest.approx((100 + 200 / 3 + 600 / 3) / 900)
