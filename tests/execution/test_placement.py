"""The study behind the fleet: a trial is drawn when there is a place for it."""

from pathlib import Path

from optuna.trial import TrialState
from ray.tune.search import Searcher

from hpsearch.execution.optuna_searcher import OptunaSearcher, reconcile
from hpsearch.execution.placement import ResourceAllocator, ResourceAwareSearcher, placement_group
from hpsearch.execution.retry_policy import RetryPolicy
from hpsearch.execution.shutdown import GracefulShutdown
from hpsearch.search.resources import MEMORY_SHARE_METRIC, Resources
from hpsearch.search.search import load_search
from hpsearch.search.study import open_study
from hpsearch.search.workspace import SearchFolder, SearchRecord, Workspace

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.objective import RETRIEVAL
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=3,
                extra_objectives=[RETRIEVAL], baseline=TrialConfig(patches=100))
"""


def begin(tmp_path: Path, space: str = SPACE) -> SearchFolder:
    (tmp_path / "space.py").write_text(space)
    record = SearchRecord(
        space="space.py", store="", fingerprint="", split="auto", tracking_uri="", trials=3
    )
    return Workspace(tmp_path / "home").create("placed", tmp_path / "space.py", record)


def searcher(
    folder: SearchFolder, allocator: ResourceAllocator, retry_policy: RetryPolicy | None = None
) -> ResourceAwareSearcher:
    study = OptunaSearcher(folder.path, space=folder.space, trials=3)
    shutdown = GracefulShutdown(
        notify_workers=lambda: None, has_running_trials=lambda: allocator.has_running
    )
    return ResourceAwareSearcher(study, allocator, retry_policy or RetryPolicy(), shutdown)


def flat(seen: int, value: float, status: str = "running", **metrics: float) -> dict:
    """As Tune gives results to a searcher."""
    inside = {f"metrics/{name}": number for name, number in metrics.items()}
    return {"seen": seen, "objective": value, "status": status, **inside}


def test_trials_wait_for_capacity_and_both_kinds_are_used(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    retry_policy = RetryPolicy()
    search = searcher(
        folder, ResourceAllocator(Resources(), [{"CPU": 8, "GPU": 1, "TPU": 1}]), retry_policy
    )
    configs = [search.suggest(trial) for trial in ("a", "b", "c")]
    assert configs[2] is None
    assert sorted(config["place"]["kind"] for config in configs[:2]) == ["gpu", "tpu"]
    assert {tuple(placement_group(config).bundles[0]) for config in configs[:2]} == {
        ("CPU", "GPU"),
        ("CPU", "TPU"),
    }
    study = open_study(folder.path, search=load_search(folder.space))
    assert len(study.trials) == 2, "nothing is drawn before there is a place"
    gpu = configs[0]["place"]["kind"] == "gpu"
    share = {MEMORY_SHARE_METRIC: 0.5 / 1.25, "val/retrieval": 0.3}
    search.on_trial_result("a" if gpu else "b", flat(10, 0.4, "running", **share))
    search.on_trial_complete("a", flat(100, 0.5, "completed", **{"val/retrieval": 0.3}))
    retry_policy.mark_failed("b", "it raised")
    search.on_trial_complete("b", error=True)
    third = search.suggest("c")
    assert third["place"]["gpus"] == 0.5, "packed by the memory that was measured"
    assert search.suggest("d") is None, "the third may have to begin again"
    retry_policy.mark_failed("c", "out of GPU memory", out_of_gpu_memory=True)
    search.on_trial_complete("c", error=True)
    again = search.suggest("d")
    assert again == {**third, "place": again["place"]}
    assert again["place"]["gpus"] == 1, "it has the GPU to itself"
    assert not search.exhausted
    retry_policy.record_worker_death("d", again["id"], "The actor died")
    search.on_trial_complete("d", error=True)
    assert search.suggest("e")["id"] == again["id"], "its worker died: it goes on"
    search.on_trial_complete("e", flat(100, 0.5, "completed", **{"val/retrieval": 0.3}))
    assert search.suggest("f") == Searcher.FINISHED
    assert search.exhausted
    assert study.trials[0].values == [0.5, 0.3], "what lies inside a result arrives"
    assert study.trials[1].state == TrialState.FAIL


def test_the_event_log_learns_how_a_trial_ended_from_the_study(tmp_path: Path) -> None:
    folder = begin(tmp_path, SPACE.replace("extra_objectives=[RETRIEVAL],", ""))
    retry_policy = RetryPolicy()
    search = searcher(folder, ResourceAllocator(Resources(), [{"CPU": 3}]), retry_policy)
    for trial in "abc":
        config = search.suggest(trial)
        folder.event_log.append(
            "start", trial=config["id"], number=config["number"], config=config["trial"]
        )
    search.on_trial_complete("a", flat(100, 0.5, "completed"))
    retry_policy.mark_failed("b", "it raised")
    search.on_trial_complete("b", error=True)  # and the driver dies before the ledger hears of it
    reconcile(folder)
    assert [run.status for run in folder.runs()] == ["completed", "failed", "running"]
    size = folder.event_log.path.stat().st_size
    reconcile(folder)
    assert folder.event_log.path.stat().st_size == size


def test_where_a_machine_ran_out_of_memory_fewer_run_until_the_guilty_one_is_alone(
    tmp_path: Path,
) -> None:
    folder = begin(tmp_path, SPACE.replace("extra_objectives=[RETRIEVAL],", ""))
    retry_policy = RetryPolicy()
    search = searcher(folder, ResourceAllocator(Resources(), [{"CPU": 2}]), retry_policy)
    greedy, newest = (search.suggest(trial) for trial in "ab")
    retry_policy.record_worker_death("b", newest["id"], "running low on memory")
    search.on_trial_complete("b", error=True)
    assert search.suggest("c") is None, "one at a time, for there was no memory for two"
    retry_policy.record_worker_death("a", greedy["id"], "running low on memory")
    search.on_trial_complete("a", error=True)
    first, second = search.suggest("c"), search.suggest("d")
    assert (first["id"], second["number"]) == (newest["id"], 2), "two at a time again"
    study = open_study(folder.path, search=load_search(folder.space))
    assert study.trials[greedy["number"]].state == TrialState.FAIL
    assert "ran out of memory" in study.trials[greedy["number"]].user_attrs["reason"]
