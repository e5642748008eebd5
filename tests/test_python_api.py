"""The Python API: values in, values out, nothing printed, nothing imported before it is used."""

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
def test_a_search_returns_its_result_and_prints_nothing(
    space: Path, tiny: PatchStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    observer, home, cell = Recorder(), tmp_path / "home", dict[str, Any]()
    exec(compile(space.read_text(), "<ipython-input-1>", "exec"), cell)  # a notebook's cell
    result = hp.run_search(
        cell["SEARCH"], name="one", data=str(tiny.path), cpus=1, home=home, observer=observer,
        overrides={"descriptor.dropout": 0.0},
    )  # fmt: skip
    assert (result.status, result.reason) == ("completed", "")
    assert [run.id for run in result.runs if run.kind == "trial"] == ["000"]
    assert result.winner is not None
    assert result.winner.seen >= 240
    assert set(result.test_scores) == {"000", "baseline", "pixels 16×16", "RootSIFT"}
    assert result.registration is not None
    baselines = [scores.mean for name, scores in result.test_scores.items() if name != "000"]
    best = result.test_scores["000"].mean > max(baselines)
    assert result.registration.alias == ("champion" if best else None)
    assert observer.kinds == ["trial", "baseline"]
    assert observer.messages[0].startswith("search one: 1 trials of at most 240 patches")
    assert capfd.readouterr().out == ""
    with pytest.raises(hp.UserError, match="'one' has finished"):
        hp.resume_search("one", home=home)
    search = hp.open_search("one", home=home)
    assert search.search.baseline.descriptor.dropout == 0.0, "overrides are known to a resume"
    table = search.trials()
    assert (list(table.index), list(table.state)) == ([0], ["completed"])
    assert table.value[0] == search.best.reports[-1]["objective"] == search.study.best_value
    assert table.seconds[0] > 0
    assert list(search.reports().seen) == [120, 240]
    assert search.figure("curves").axes
    with pytest.raises(hp.UserError, match="there are: learning-curves"):
        search.figure("no-such")
    patches = np.array(tiny.noisy[0])
    found = hp.load_model("patch-descriptor@1", home=home).describe(patches)
    assert found.shape == (16, 128)
    np.testing.assert_allclose(hp.load_model("one/000", home=home).describe(patches), found)
    plan = hp.plan_promotion("one", top=1, seeds=2, home=home)
    assert [one.trial for one in plan.plan.selected] == ["000"]


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
