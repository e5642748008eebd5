"""What a command loads of a search: once, kept when the record changes, and nothing is written."""

import pickle
import sys
from pathlib import Path

import pytest

from hpsearch.console.search_output import print_trials
from hpsearch.data.patch_store import PatchStore
from hpsearch.search.resources import Resources
from hpsearch.search.search_context import SearchContext, SearchPaths
from hpsearch.search.space_file import load_search
from hpsearch.search.workspace import Workspace

from ..search_factory import plan

SPACE = """
from pathlib import Path
from hpsearch.config import TrialConfig
from hpsearch.search.samplers import Random
from hpsearch.search.search import Search

with Path({executions!r}).open("a") as file:
    file.write("x")
SEARCH = Search(suggest=lambda trial: TrialConfig(patches=100), budget=100, report_every=10,
                trials=2, sampler=Random(), baseline=TrialConfig(patches=100))
"""


@pytest.fixture
def executions(tmp_path: Path) -> Path:
    """File that grows by one byte whenever the space file is executed."""
    return tmp_path / "executions"


@pytest.fixture
def context(tmp_path: Path, tiny: PatchStore, executions: Path) -> SearchContext:
    """A search with one completed trial, opened again."""
    space = SPACE.format(executions=str(executions))
    created = plan(tmp_path / "home", tiny, space, trials=2, max_concurrent_trials=1)
    config = created.search.baseline.model_dump(mode="json")
    created.event_log.append("start", trial="000", number=0, config=config)
    created.event_log.append("report", trial="000", seen=100, objective=0.5, metrics={})
    created.event_log.append("trial_finished", trial="000", status="completed")
    executions.unlink()
    return Workspace(created.home).open("far")


def test_each_part_is_loaded_once(context: SearchContext, executions: Path) -> None:
    assert context.search is context.search
    assert context.store is context.store
    assert context.split is context.split
    assert context.environment.store is context.store
    assert context.resources.device == "cpu"
    assert context.objective == context.search.objective
    assert executions.read_text() == "x"


def test_a_changed_record_keeps_what_does_not_depend_on_it(
    context: SearchContext, executions: Path
) -> None:
    search, store, split = context.search, context.store, context.split
    assert [run.id for run in context.runs] == ["000"]
    assert context.resources == Resources(device="cpu")
    changed = context.changed(trials=9, resources=Resources(device="cuda"))
    assert (changed.record.trials, context.record.trials) == (9, 2)
    assert changed.search is search
    assert changed.store is store
    assert changed.split is split
    assert [run.id for run in changed.runs] == ["000"]
    assert changed.resources.device == "cuda"
    assert context.changed(split="mini").store is store
    assert context.changed(split="mini").split is not split
    assert Workspace(context.home).open("far").record == context.record, "nothing was written"
    assert executions.read_text() == "x"
    written = context.with_record(trials=9)
    assert Workspace(context.home).open("far").record == written.record


def test_a_context_with_another_search_does_not_execute_the_file(
    context: SearchContext, executions: Path, tmp_path: Path
) -> None:
    _ = context.resources
    other = context.search.with_changes(
        compute=context.search.compute.model_copy(update={"device": "cuda"})
    )
    undecided = context.changed(resources=Resources()).with_search(other)
    assert undecided.search is other
    assert undecided.resources.device == "cuda"
    executions.unlink()
    created = Workspace(tmp_path / "home").create(
        "second", context.paths.space, context.record, search=other
    )
    assert created.search is other
    assert not executions.exists()


def test_runs_are_those_of_the_event_log_by_now(context: SearchContext) -> None:
    config = context.search.baseline.model_dump(mode="json")
    assert [run.status for run in context.runs] == ["completed"]
    state = context.state
    context.event_log.append("start", trial="001", number=1, config=config)
    assert [run.status for run in context.runs] == ["completed", "running"]
    assert [run.id for run in state.ordered_runs] == ["000"], "a state does not change"


def test_reading_a_search_writes_nothing(
    context: SearchContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = snapshot(context.home)
    workspace = Workspace(context.home)
    assert workspace.searches() == ["far"]
    opened = workspace.open("far")
    print_trials(opened)
    _ = opened.split, opened.resources, opened.environment
    assert snapshot(context.home) == before


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Time of the last change and content of everything in a folder."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


def test_a_space_file_is_executed_as_it_is_now(tmp_path: Path, executions: Path) -> None:
    """Two versions of one size within a second, which cached bytecode could not tell apart."""
    path, text = tmp_path / "space.py", SPACE.format(executions=str(executions))
    for trials in range(1, 10):
        path.write_text(text.replace("trials=2", f"trials={trials}"))
        assert load_search(path).trials == trials


def test_a_context_stays_in_its_process(context: SearchContext) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(context)


def test_paths_are_computed_without_a_look_at_the_disk() -> None:
    paths = SearchPaths(Path("/nowhere"), "s")
    assert paths.folder == Path("/nowhere/searches/s")
    assert {p.relative_to(paths.folder).as_posix() for p in (
        paths.space, paths.trials_dir, paths.event_log, paths.sync_state, paths.lock
    )} == {"space.py", "trials", "ledger.jsonl", "published.json", "lock"}  # fmt: skip
