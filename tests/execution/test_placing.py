"""The study behind the fleet: a trial is drawn when there is a place for it."""

from pathlib import Path

from optuna.trial import TrialState
from ray.tune.search import Searcher

from hpsearch.execution.optuna_searcher import StudySearch, reconcile
from hpsearch.execution.placement import Fleet, PlacedSearch, bundles
from hpsearch.execution.retry_policy import Lives
from hpsearch.execution.shutdown import Farewell
from hpsearch.search.resources import MEMORY_SHARE, Resources
from hpsearch.search.search import load_search
from hpsearch.search.study import open_study
from hpsearch.search.workspace import SearchFolder, SearchRecord, Workspace

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.objective import RETRIEVAL
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimiser=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=3,
                extra_objectives=[RETRIEVAL], baseline=TrialConfig(patches=100))
"""


def begin(tmp_path: Path, space: str = SPACE) -> SearchFolder:
    (tmp_path / "space.py").write_text(space)
    record = SearchRecord(
        space="space.py", store="", fingerprint="", split="auto", tracking_uri="", trials=3
    )
    return Workspace(tmp_path / "home").create("placed", tmp_path / "space.py", record)


def searcher(folder: SearchFolder, fleet: Fleet, lives: Lives | None = None) -> PlacedSearch:
    study = StudySearch(folder.path, space=folder.space, trials=3)
    farewell = Farewell(tell=lambda: None, busy=lambda: fleet.busy)
    return PlacedSearch(study, fleet, lives or Lives(), farewell)


def flat(seen: int, value: float, status: str = "running", **metrics: float) -> dict:
    """As Tune gives results to a searcher."""
    inside = {f"metrics/{name}": number for name, number in metrics.items()}
    return {"seen": seen, "objective": value, "status": status, **inside}


def test_trials_wait_for_places_and_both_kinds_are_used(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    lives = Lives()
    search = searcher(folder, Fleet(Resources(), [{"CPU": 8, "GPU": 1, "TPU": 1}]), lives)
    configs = [search.suggest(trial) for trial in ("a", "b", "c")]
    assert configs[2] is None
    assert sorted(config["place"]["kind"] for config in configs[:2]) == ["gpu", "tpu"]
    assert {tuple(bundles(config).bundles[0]) for config in configs[:2]} == {
        ("CPU", "GPU"),
        ("CPU", "TPU"),
    }
    study = open_study(folder.path, search=load_search(folder.space))
    assert len(study.trials) == 2, "nothing is drawn before there is a place"
    gpu = configs[0]["place"]["kind"] == "gpu"
    share = {MEMORY_SHARE: 0.5 / 1.25, "val/retrieval": 0.3}
    search.on_trial_result("a" if gpu else "b", flat(10, 0.4, "running", **share))
    search.on_trial_complete("a", flat(100, 0.5, "completed", **{"val/retrieval": 0.3}))
    lives.give_up("b", "it raised")
    search.on_trial_complete("b", error=True)
    third = search.suggest("c")
    assert third["place"]["gpus"] == 0.5, "packed by the memory that was measured"
    assert search.suggest("d") is None, "the third may have to begin again"
    lives.give_up("c", "out of GPU memory", squeezed=True)
    search.on_trial_complete("c", error=True)
    again = search.suggest("d")
    assert again == {**third, "place": again["place"]}
    assert again["place"]["gpus"] == 1, "it has the GPU to itself"
    assert not search.exhausted
    lives.died("d", again["id"], "The actor died")
    search.on_trial_complete("d", error=True)
    assert search.suggest("e")["id"] == again["id"], "its worker died: it goes on"
    search.on_trial_complete("e", flat(100, 0.5, "completed", **{"val/retrieval": 0.3}))
    assert search.suggest("f") == Searcher.FINISHED
    assert search.exhausted
    assert study.trials[0].values == [0.5, 0.3], "what lies inside a result arrives"
    assert study.trials[1].state == TrialState.FAIL


def test_the_ledger_learns_how_a_trial_ended_from_the_study(tmp_path: Path) -> None:
    folder = begin(tmp_path, SPACE.replace("extra_objectives=[RETRIEVAL],", ""))
    lives = Lives()
    search = searcher(folder, Fleet(Resources(), [{"CPU": 3}]), lives)
    for trial in "abc":
        config = search.suggest(trial)
        folder.ledger.append(
            "start", trial=config["id"], number=config["number"], config=config["trial"]
        )
    search.on_trial_complete("a", flat(100, 0.5, "completed"))
    lives.give_up("b", "it raised")
    search.on_trial_complete("b", error=True)  # and the driver dies before the ledger hears of it
    reconcile(folder)
    assert [run.status for run in folder.runs()] == ["completed", "failed", "running"]
    size = folder.ledger.path.stat().st_size
    reconcile(folder)
    assert folder.ledger.path.stat().st_size == size


def test_where_a_machine_ran_out_of_memory_fewer_run_until_the_guilty_one_is_alone(
    tmp_path: Path,
) -> None:
    folder = begin(tmp_path, SPACE.replace("extra_objectives=[RETRIEVAL],", ""))
    lives = Lives()
    search = searcher(folder, Fleet(Resources(), [{"CPU": 2}]), lives)
    greedy, newest = (search.suggest(trial) for trial in "ab")
    lives.died("b", newest["id"], "running low on memory")
    search.on_trial_complete("b", error=True)
    assert search.suggest("c") is None, "one at a time, for there was no memory for two"
    lives.died("a", greedy["id"], "running low on memory")
    search.on_trial_complete("a", error=True)
    first, second = search.suggest("c"), search.suggest("d")
    assert (first["id"], second["number"]) == (newest["id"], 2), "two at a time again"
    study = open_study(folder.path, search=load_search(folder.space))
    assert study.trials[greedy["number"]].state == TrialState.FAIL
    assert "ran out of memory" in study.trials[greedy["number"]].user_attrs["reason"]
