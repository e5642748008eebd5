"""Heavy packages that each command has imported by its end, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main

from hpsearch.cli import app
from hpsearch.config import L2Net, TrialConfig
from hpsearch.data.patch_store import PatchStore
from hpsearch.models import Pipeline, build_descriptor
from hpsearch.models.serialization import PipelineSpec, save_pipeline

from ..frozen.conftest import unpack
from ..processes import environment

HEAVY = (
    *("torch", "mlflow", "ray", "pandas", "matplotlib", "sklearn", "skimage", "plotly"),
    *("scipy.ndimage", "scipy.optimize", "sqlalchemy", "jinja2", "optuna", "pyarrow", "PIL"),
    "torch._dynamo",
)
"""Packages that take between a twentieth of a second and two seconds to import."""
PROGRAM = f"""
import json, sys
from hpsearch.cli import main

if __name__ == "__main__":
    for words in json.loads(sys.argv[1]):
        sys.argv = ["hpsearch", *words]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        loaded = [name for name in {HEAVY!r} if name in sys.modules]
        print("\\n##" + json.dumps({{"words": words, "code": code, "loaded": loaded}}))
"""
HELP_MAY = {"pyarrow"}
LIGHT_MAY = {"pyarrow", "optuna", "PIL"}
"""Opening a home takes these: the settings of a search, and the headers of patch stores."""
MLFLOW_MAY = LIGHT_MAY | {"mlflow", "pandas", "sqlalchemy"}
"""MLflow brings the other two."""
TORCH_MAY = LIGHT_MAY | {"torch", "skimage", "scipy.ndimage", "scipy.optimize"}
NO_HEAD = "http://127.0.0.1:1"


class Ended(NamedTuple):
    """What a command came to."""

    words: list[str]
    code: int
    loaded: set[str]


def ended(*commands: list[str], home: Path) -> list[Ended]:
    """Run commands one after the other in one process, which keeps what each has imported."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, json.dumps(commands)],
        env=environment(HPSEARCH_HOME=str(home)), cwd=home.parent,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    found = [json.loads(line[2:]) for line in done.stdout.splitlines() if line.startswith("##")]
    assert len(found) == len(commands), done.stdout + done.stderr
    return [Ended(one["words"], one["code"], set(one["loaded"])) for one in found]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> Path:
    """The home that 0.1.0 left, with a trained pipeline and some files that are wrong."""
    place = tmp_path_factory.mktemp("lazy")
    network = L2Net(width=0.125, input_norm=True)
    pipeline = Pipeline(denoiser=None, descriptor=build_descriptor(network, seed=0))
    save_pipeline(pipeline, PipelineSpec(denoiser=None, descriptor=network), place / "trained")
    (place / "bad.json").write_text('{"colour": "red"}')
    (place / "good.json").write_text(TrialConfig(patches=100).model_dump_json())
    (place / "raises.py").write_text("raise RuntimeError('on purpose')\n")
    return unpack(place)


def test_help_imports_nothing_heavy(home: Path) -> None:
    command = typer.main.get_command(app)
    names = [[name] for name in command.commands if name != "data"]  # type: ignore[attr-defined]
    names += [["data", name] for name in command.commands["data"].commands]  # type: ignore[attr-defined]
    assert ["search"] in names
    assert ["data", "info"] in names
    for one in ended([], ["--version"], *([*name, "--help"] for name in names), home=home):
        assert one.code == 0 or not one.words, one
        assert one.loaded <= HELP_MAY, one


def test_refusals_and_facts_import_nothing_heavy(home: Path, tiny: PatchStore) -> None:
    store, missing = str(tiny.path), "there-is-none"
    space = str(Path(__file__).parents[2] / "search_spaces" / "quickstart.py")
    refused = [
        ["search", f"{missing}.py"],
        ["search", "raises.py"],
        ["search", space, "--data", missing],
        ["search", space, "--data", store, "--split", "z"],
        ["search", space, "--data", store, "--name", "finished"],
        ["resume", missing],
        ["resume", "finished"],
        ["extend", missing, "--trials", "3"],
        ["extend", "finished-promotion", "--trials", "3"],
        ["train", f"{missing}.json"],
        ["train", "bad.json"],
        ["train", "good.json", "--data", missing],
        ["train", "good.json", "--data", store, "--split", "z"],
        ["promote", missing],
        ["rollback", "--home", "no-home"],
        ["ensemble", "a@1", "b@2", "--name", "/"],
        ["ensemble", "a@1", "b@2", "--name", "both", "--home", "no-home"],
        ["report", missing],
        ["ui", missing],
        ["sync", missing],
        ["describe", missing, store, "--output", "x.npy"],
        ["describe", "trained", store, "--output", "bad.json"],
        ["evaluate"],
        ["evaluate", missing],
        ["evaluate", "trained", "--data", missing],
        ["evaluate", "trained", "--data", store, "--split", "z"],
        ["evaluate", "trained", "--tasks", missing],
        ["match", "a.png", "b.png", "--model", missing],
        ["export", missing, "--onnx", "x.onnx"],
        ["export", "trained", "--onnx", "x.txt"],
        ["data", "info", missing],
        ["submit", f"{missing}.py", "--address", NO_HEAD],
    ]
    for one in ended(*refused, home=home):
        assert one.code == 2, one
        assert one.loaded <= LIGHT_MAY, one
    (facts,) = ended(["data", "info", store], home=home)
    assert facts.code == 0
    assert facts.loaded <= LIGHT_MAY


def test_commands_for_clusters_import_ray_alone(home: Path) -> None:
    names = [["list"], ["status", "a"], ["logs", "a"], ["stop", "a"]]
    for one in ended(*([*name, "--address", NO_HEAD] for name in names), home=home):
        assert one.code == 2
        assert one.loaded <= LIGHT_MAY | {"ray"}, one


def test_plans_of_promotions_import_mlflow_alone(home: Path) -> None:
    for one in ended(["promote", "finished", "--dry-run"], ["rollback"], home=home):
        assert one.code == 0, one
        assert one.loaded <= MLFLOW_MAY, one


def test_evaluation_imports_torch_alone_and_figures_when_asked(
    home: Path, tiny: PatchStore
) -> None:
    store = str(tiny.path)
    *light, drawn = ended(
        ["describe", "trained", store, "--output", "descriptors"],
        ["evaluate", "trained", "--data", store],
        ["evaluate", "trained", "--data", store, "--output", "scored"],
        home=home,
    )
    for one in light:
        assert one.code == 0, one
        assert one.loaded <= TORCH_MAY, one
    assert drawn.code == 0
    assert drawn.loaded <= TORCH_MAY | {"matplotlib", "jinja2"}


def test_training_imports_torch_alone(home: Path, tiny: PatchStore) -> None:
    (home.parent / "short.json").write_text(
        TrialConfig(descriptor=L2Net(width=0.125), patches=200).model_dump_json()
    )
    (done,) = ended(["train", "short.json", "--data", str(tiny.path)], home=home)
    assert done.code == 0
    assert done.loaded <= TORCH_MAY
