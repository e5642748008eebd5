"""The Python API: values in, values out, nothing printed, nothing imported before it is used."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpsearch as hp
from hpsearch.data.patch_store import PatchStore
from hpsearch.search.workspace import Workspace

HEAVY = ("torch", "ray", "mlflow", "optuna", "pyarrow", "pandas", "typer", "rich")

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.samplers import Random
from hpsearch.search.samplers import Random
from hpsearch.search.search import Search

SMALL = dict(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=240)

def suggest(trial):
    return TrialConfig(optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-3)), **SMALL)

SEARCH = Search(suggest=suggest, budget=240, report_every=120, trials=1, sampler=Random(),
                baseline=TrialConfig(**SMALL), validation_points=4)
"""


class Recorder(hp.Observer):
    """Keeps what a workflow reports."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.kinds: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    @contextmanager
    def training(self, context: object, *, kind: str = "trial") -> Iterator[None]:
        self.kinds.append(kind)
        yield


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "one.py"
    path.write_text(SPACE)
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Any type hint:UserWarning")  # MLflow, on our signature
def test_the_notebook_runs_and_a_search_returns_its_result_and_prints_nothing(
    tiny: PatchStore, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    home = Path("runs")
    (home / "data").mkdir(parents=True)
    shutil.copy(tiny.path, home / "data")
    observer = Recorder()
    cells: dict[str, Any] = {"observer": observer}
    for number, source in enumerate(notebook_cells()):
        code = source.replace("hp.ConsoleObserver()", "observer")
        exec(compile(code, f"<cell {number}>", "exec"), cells)
    assert capfd.readouterr().out == ""
    result = cells["result"]
    assert (result.status, result.reason) == ("completed", "")
    assert [run.id for run in result.runs if run.kind == "trial"] == ["000", "001"]
    assert result.winner is not None
    assert result.winner.seen >= 240
    winner = result.winner.label
    assert set(result.test_scores) >= {winner, "baseline", "pixels 16×16", "RootSIFT"}
    assert result.registration is not None
    baselines = [scores.mean for name, scores in result.test_scores.items() if name != winner]
    best = result.test_scores[winner].mean > max(baselines)
    assert result.registration.alias == ("champion" if best else None)
    assert observer.kinds == ["trial", "baseline"]
    assert observer.messages[0].startswith("search cell: 2 trials of at most 240 patches")
    with pytest.raises(hp.UserError, match="'cell' has finished"):
        hp.resume_search("cell", home=home)
    check_handle(cells["found"], cells["table"], tiny)
    plan = hp.plan_promotion("cell", top=1, seeds=2, home=home)
    assert [one.trial for one in plan.plan.selected] == [winner]


def notebook_cells() -> list[str]:
    """Code of the notebook in docs/."""
    notebook = json.loads((Path(__file__).parents[1] / "docs" / "search.ipynb").read_text())
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def check_handle(search: hp.SearchHandle, table: Any, tiny: PatchStore) -> None:
    """Tables, study and figure of a search say the same; overrides are known later."""
    assert search.search.baseline.descriptor.dropout == 0.0
    assert (list(table.index), set(table.state)) == ([0, 1], {"completed"})
    assert table["optimizer.lr"].nunique() == 2
    best = table.value[search.best.number]
    assert best == table.value.max() == search.best.reports[-1]["objective"]
    assert best == search.study.best_value
    assert (table.seconds > 0).all()
    assert list(search.reports().seen) == [120, 240] * 2
    with pytest.raises(hp.UserError, match="there are: learning-curves"):
        search.figure("no-such")
    patches = np.array(tiny.noisy[0])
    found = hp.load_model("patch-descriptor@1").describe(patches)
    assert found.shape == (16, 128)
    own = hp.load_model(f"cell/{search.best.id}").describe(patches)
    np.testing.assert_allclose(own, found, atol=1e-6)
    log = (search.context.paths.folder / "search.log").read_text()
    assert "winner: trial" in log


def test_a_mistake_raises_before_anything_is_written(space: Path, tmp_path: Path) -> None:
    with pytest.raises(hp.UserError, match="no-such"):
        hp.run_search(space, data="no-such", home=tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_every_name_of_the_api_is_there_and_documented() -> None:
    for name in hp._EXPORTS:
        assert getattr(hp, name).__doc__, name
    assert hp.L2Net(width=0.5).width == 0.5
    assert {"run_search", "TrialConfig", "L2Net"} <= set(dir(hp))
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        hp.no_such_name  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import hpsearch, sys; print(*({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_what_the_end_needs_is_checked_before_the_beginning(
    space: Path, tiny: PatchStore, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with pytest.raises(hp.UserError, match="'a/b' cannot name a model"):
        hp.run_search(space, data=str(tiny.path), home=home, model="a/b")
    tracking = Workspace(home).tracking()
    tracking.client().delete_experiment(tracking.experiment_id())
    with pytest.raises(hp.UserError, match="restore it with `mlflow experiments restore") as caught:
        hp.run_search(space, data=str(tiny.path), home=home)
    assert caught.value.code == "experiment-deleted"
    assert not (home / "searches").exists()
