"""A workspace with a registry: two tiny versions that share their patches, one that does not."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from hpsearch.cli import app
from hpsearch.config import L2Net, TrialConfig
from hpsearch.config.networks import ShallowUNet
from hpsearch.data.patch_store import PatchStore
from hpsearch.models import Pipeline, build_denoiser, build_descriptor
from hpsearch.models.serialization import PipelineSpec, save_pipeline
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.mlflow_tags import FINGERPRINT_TAG
from hpsearch.tracking.model_artifact import ModelArtifact
from hpsearch.tracking.model_registry import Registry
from hpsearch.training.devices import choose_device
from hpsearch.training.validation import build_test_set, evaluate_on_test_set

from ..end_to_end.sample_search import write_trials

SLOW_WITH_MLFLOW = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning",
        "ignore::UserWarning",
    ),
]  # fmt: skip
"""Marks of slow tests that use MLflow in this process, whose warnings are its own."""
NETWORK = L2Net(width=0.125, input_norm=True, unit_norm=True)
RECIPES = (
    PipelineSpec(denoiser=ShallowUNet(width=0.125), descriptor=NETWORK),
    PipelineSpec(denoiser=None, descriptor=NETWORK),
)


@dataclass(frozen=True)
class Registered:
    """Where the versions are, and what is in them."""

    home: Path
    pipelines: tuple[Pipeline, ...]
    store: PatchStore

    def run(self, *words: object) -> None:
        """A command, in this process; a refusal is raised."""
        arguments = [str(word) for word in words]
        app([*arguments, "--home", str(self.home)], standalone_mode=False)

    @property
    def uri(self) -> str:
        return Workspace(self.home).tracking().uri

    def artifact(self, version: int, model: str = "patches") -> Path:
        """The folder with the MLmodel of a version."""
        mlflow.set_tracking_uri(self.uri)
        return Path(mlflow.artifacts.download_artifacts(f"models:/{model}/{version}"))


@pytest.fixture(scope="session")
def registered(tiny: PatchStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registered]:
    before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    home = tmp_path_factory.mktemp("home")
    registry = Registry(tracking=Workspace(home).tracking(), model="patches")
    pipelines = tuple(_pipeline(recipe, seed) for seed, recipe in enumerate(RECIPES))
    client = registry.tracking.client()
    where = registry.tracking.experiment_id()
    scores = evaluate_on_test_set(
        pipelines[1], build_test_set(tiny, tiny.split()), noisy=True, device=choose_device("cpu")
    )
    for number, (pipeline, recipe) in enumerate(zip(pipelines, RECIPES, strict=True)):
        folder = home / f"pipeline{number}"
        save_pipeline(pipeline, recipe, folder)
        candidate = ModelArtifact(
            folder=folder,
            run_id=client.create_run(where).info.run_id,
            search=f"s{number}",
            scores=scores,
            fingerprint=tiny.fingerprint,
            example=np.array(tiny.noisy[:4, 0]),
            descriptor_dim=128,
            split=tiny.split().name,
        )
        version = registry.register(candidate)
    other = client.get_model_version("patches", str(version))
    client.create_model_version("patches", other.source, tags={FINGERPRINT_TAG: "f" * 64})
    client.set_registered_model_alias("patches", "champion", "1")
    yield Registered(home, pipelines, tiny)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture
def refused(registered: Registered) -> Callable[..., str]:
    """Run a command that fails; code and sentence of its error."""
    from hpsearch.errors import UserError

    def run(*words: object) -> str:
        with pytest.raises(UserError) as caught:
            registered.run(*words)
        return f"{caught.value.code}: {caught.value}"

    return run


def _pipeline(recipe: PipelineSpec, seed: int) -> Pipeline:
    with torch.random.fork_rng():
        denoiser = None if recipe.denoiser is None else build_denoiser(recipe.denoiser, seed=seed)
        return Pipeline(
            denoiser=denoiser, descriptor=build_descriptor(recipe.descriptor, seed=seed)
        ).eval()


@pytest.fixture(scope="module")
def material(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What commands are given, by the word that stands for it."""
    folder = tmp_path_factory.mktemp("material")
    home = folder / "home"
    shutil.copytree(registered.home, home)
    space = Path(__file__).parents[1] / "end_to_end" / "space.py"
    write_search(home, space, registered.store)
    trial = folder / "trial.json"
    trial.write_text(TrialConfig(patches=1000).model_dump_json())
    return {
        "HPATCHES": folder, "PHOTOS": folder, "STORE": registered.store.path, "TRIAL": trial,
        "SPACE": space, "OUT": folder / "trained", "HOME": home,
    }  # fmt: skip


def write_search(home: Path, space: Path, store: PatchStore) -> SearchContext:
    """A search ``one`` with three trials in its event log, none of them trained."""
    record = SearchRecord(
        space=str(space), store=str(store.path.absolute()), fingerprint=store.fingerprint,
        split="auto", tracking_uri=Workspace(home).tracking().given, trials=6,
    )  # fmt: skip
    context = Workspace(home).create("one", space, record)
    write_trials(context.event_log, store.fingerprint)
    return context
