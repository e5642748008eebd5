"""The study behind the fleet: a trial is drawn when there is a place for it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.pruners import NopPruner
from optuna.trial import TrialState
from ray.tune.search import Searcher

from hpsearch.execution.hang_detector import ReportTimeouts
from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.execution.placement import ResourceAllocator, placement_group
from hpsearch.execution.retry_policy import RetryPolicy
from hpsearch.execution.shutdown import GracefulShutdown
from hpsearch.execution.study_restore import reconcile
from hpsearch.execution.trial_supervisor import TrialSupervisor
from hpsearch.execution.tune_callbacks import ResourceAwareSearcher
from hpsearch.execution.worker_messages import Failed, decode_config
from hpsearch.search.pruners import PrunerWithHistory
from hpsearch.search.resources import MEMORY_SHARE_METRIC, Resources
from hpsearch.search.search_context import SearchContext
from hpsearch.search.space_file import load_search
from hpsearch.search.study import open_study
from hpsearch.search.workspace import SearchRecord, Workspace

from ..reports import reported

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.objective import RETRIEVAL
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=3,
                extra_objectives=[RETRIEVAL], baseline=TrialConfig(patches=100))
"""


def begin(tmp_path: Path, space: str = SPACE) -> SearchContext:
    (tmp_path / "space.py").write_text(space)
    record = SearchRecord(
        space="space.py", store="", fingerprint="", split="auto", tracking_uri="", trials=3
    )
    return Workspace(tmp_path / "home").create("placed", tmp_path / "space.py", record)


def searcher(context: SearchContext, allocator: ResourceAllocator) -> ResourceAwareSearcher:
    return ResourceAwareSearcher(supervisor_of(context, allocator))


def supervisor_of(context: SearchContext, allocator: ResourceAllocator) -> TrialSupervisor:
    return TrialSupervisor(
        event_log=context.event_log,
        searcher=OptunaSearcher(context.paths.folder, space=context.paths.space, trials=3),
        allocator=allocator,
        retry_policy=RetryPolicy(),
        pruner=PrunerWithHistory(NopPruner(), direction="maximize", name="placed"),
        timeouts=ReportTimeouts(),
        shutdown=GracefulShutdown(
            notify_workers=lambda: None, has_running_trials=lambda: allocator.has_running
        ),
    )


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "join", "leave"]), st.integers(0, 9))))
def test_a_trial_starts_exactly_where_a_slot_is_free(steps: list[tuple[str, int]]) -> None:
    nodes = [{"CPU": 2.0}]
    allocator, running = ResourceAllocator(Resources(), nodes), set[str]()
    for step, number in steps:
        trial = f"{number}"
        if step == "take" and trial not in running:
            free = len(running) < 2 * len(nodes)
            assert (allocator.acquire(trial) is not None) == free
            running |= {trial} if free else set()
        elif step == "give":
            assert (allocator.release(trial) is not None) == (trial in running)
            running.discard(trial)
        elif step in ("join", "leave"):
            nodes = [{"CPU": 2.0}] * max(1, len(nodes) + (1 if step == "join" else -1))
            allocator.update_nodes(nodes)


def worker_dies(search: ResourceAwareSearcher, trial: str, config: dict, error: str) -> None:
    search.supervisor.register(trial, config, lambda: error)
    search.on_trial_complete(trial, error=True)


def trial_raises(search: ResourceAwareSearcher, trial: str, **why: bool) -> None:
    search.on_trial_result(trial, Failed("it raised", **why).to_dict())
    search.on_trial_complete(trial, error=True)


def test_trials_wait_for_capacity_and_both_kinds_are_used(tmp_path: Path) -> None:
    context = begin(tmp_path)
    search = searcher(context, ResourceAllocator(Resources(), [{"CPU": 8, "GPU": 1, "TPU": 1}]))
    sent = [search.suggest(trial) for trial in ("a", "b", "c")]
    assert sent[2] is None
    configs = [decode_config(config) for config in sent[:2]]
    assert sorted(config["place"]["kind"] for config in configs) == ["gpu", "tpu"]
    assert {tuple(placement_group(config).bundles[0]) for config in sent[:2]} == {
        ("CPU", "GPU"),
        ("CPU", "TPU"),
    }
    study = open_study(context.paths.folder, search=load_search(context.paths.space))
    assert len(study.trials) == 2, "nothing is drawn before there is a place"
    gpu = configs[0]["place"]["kind"] == "gpu"
    share = {MEMORY_SHARE_METRIC: 0.5 / 1.25, "val/retrieval": 0.3}
    search.on_trial_result("a" if gpu else "b", reported(10, 0.4, metrics=share))
    search.on_trial_complete("a", reported(100, 0.5, "completed", metrics={"val/retrieval": 0.3}))
    trial_raises(search, "b")
    third = decode_config(search.suggest("c"))
    assert third["place"]["gpus"] == 0.5, "packed by the memory that was measured"
    assert search.suggest("d") is None, "the third may have to begin again"
    trial_raises(search, "c", out_of_memory=True)
    again = decode_config(search.suggest("d"))
    assert again == {**third, "place": again["place"]}
    assert again["place"]["gpus"] == 1, "it has the GPU to itself"
    assert not search.exhausted
    worker_dies(search, "d", again, "The actor died")
    assert search.suggest("e")["id"] == again["id"], "its worker died: it goes on"
    search.on_trial_complete("e", reported(100, 0.5, "completed", metrics={"val/retrieval": 0.3}))
    assert search.suggest("f") == Searcher.FINISHED
    assert search.exhausted
    assert study.trials[0].values == [0.5, 0.3], "what lies inside a result arrives"
    assert study.trials[1].state == TrialState.FAIL


def test_the_event_log_learns_how_a_trial_ended_from_the_study(tmp_path: Path) -> None:
    context = begin(tmp_path, SPACE.replace("extra_objectives=[RETRIEVAL],", ""))
    search = searcher(context, ResourceAllocator(Resources(), [{"CPU": 3}]))
    study = search.supervisor.searcher
    for trial in "abc":
        config = decode_config(search.suggest(trial))
        context.event_log.append(
            "start", trial=config["id"], number=config["number"], config=config["trial"]
        )
    study.on_trial_complete("a", reported(100, 0.5, "completed"))
    study.on_trial_complete("b", error=True)  # and the driver dies before the event log knows
    reconcile(context)
    assert [run.status for run in context.runs] == ["completed", "failed", "running"]
    size = context.event_log.path.stat().st_size
    reconcile(context)
    assert context.event_log.path.stat().st_size == size


@pytest.mark.parametrize("error", ["running low on memory", "The actor died unexpectedly"])
def test_where_a_machine_ran_out_of_memory_fewer_run_until_the_guilty_one_is_alone(
    error: str, tmp_path: Path
) -> None:
    """Killed by Ray, which says so, or by the kernel, which only counts."""
    context = begin(tmp_path, SPACE.replace("extra_objectives=[RETRIEVAL],", ""))
    search = searcher(context, ResourceAllocator(Resources(), [{"CPU": 2}]))
    search.supervisor.was_killed_for_memory = lambda trial: True
    greedy, newest = (search.suggest(trial) for trial in "ab")
    worker_dies(search, "b", newest, error)
    assert search.suggest("c") is None, "one at a time, for there was no memory for two"
    worker_dies(search, "a", greedy, error)
    first, second = search.suggest("c"), search.suggest("d")
    assert (first["id"], second["number"]) == (newest["id"], 2), "two at a time again"
    study = open_study(context.paths.folder, search=load_search(context.paths.space))
    assert study.trials[greedy["number"]].state == TrialState.FAIL
    assert "--max-concurrent-trials" in study.trials[greedy["number"]].user_attrs["reason"]
