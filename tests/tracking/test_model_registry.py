"""The registry, for real: a pipeline goes in, and comes out in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities.model_registry import ModelVersion

from hpsearch.config import DnCNN, L2Net
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.models import Pipeline, build_denoiser, build_descriptor, describe
from hpsearch.models.serialization import PipelineSpec, save_pipeline
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.decision import Decision
from hpsearch.tracking.mlflow_tags import artifact_location, default_uri
from hpsearch.tracking.model_artifact import ModelArtifact, load_descriptor
from hpsearch.tracking.model_registry import Registry
from hpsearch.training.devices import choose_device
from hpsearch.training.validation import build_test_set, evaluate_on_test_set

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning",
    "ignore::UserWarning",
)  # fmt: skip

RECIPE = PipelineSpec(
    denoiser=DnCNN(depth=3, channels=4), descriptor=L2Net(width=0.125, unit_norm=True)
)


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    assert RECIPE.denoiser is not None
    return Pipeline(
        denoiser=build_denoiser(RECIPE.denoiser, seed=1),
        descriptor=build_descriptor(RECIPE.descriptor, seed=2),
    ).eval()


@pytest.fixture(scope="module")
def scores(pipeline: Pipeline, tiny: PatchStore) -> Scores:
    test = build_test_set(tiny, tiny.split())
    return evaluate_on_test_set(pipeline, test, noisy=True, device=choose_device("cpu"))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    home = tmp_path_factory.mktemp("registry")
    uri = default_uri(home)
    return Registry(
        tracking=TrackingServer(uri=uri, artifact_root=artifact_location(uri, home)),
        model="patches",
    )


@pytest.fixture(scope="module")
def candidate(
    registry: Registry, pipeline: Pipeline, scores: Scores, tiny: PatchStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> ModelArtifact:  # fmt: skip
    folder = tmp_path_factory.mktemp("pipeline")
    save_pipeline(pipeline, RECIPE, folder)
    client = registry.tracking.client()
    experiment = client.create_experiment("e", artifact_location=registry.tracking.artifact_root)
    run_id = client.create_run(experiment).info.run_id
    client.log_param(run_id, "optimizer.lr", 0.01)
    return ModelArtifact(
        folder=folder,
        run_id=run_id,
        search="first",
        scores=scores,
        fingerprint=tiny.fingerprint,
        example=np.array(tiny.noisy[:4, 0]),
        descriptor_dim=128,
    )


@pytest.fixture(scope="module")
def version(registry: Registry, candidate: ModelArtifact) -> int:
    return registry.register(candidate)


def test_there_is_no_champion_before_the_first(registry: Registry) -> None:
    other = Registry(tracking=registry.tracking, model="nobody")
    assert other.champion() is None
    assert other.version_of("first") is None


def test_a_version_knows_its_search_and_its_scores(
    registry: Registry, version: int, scores: Scores
) -> None:
    found = registry.version_of("first")
    assert found is not None
    assert int(found.version) == version
    assert found.tags["test/mean"] == f"{scores.mean:.4f}"
    again = registry.scores(found)
    assert (again.verification, again.matching) == (scores.verification, scores.matching)


def test_a_logged_model_has_its_scores_on_their_patches(
    registry: Registry, candidate: ModelArtifact, version: int
) -> None:
    client = registry.tracking.client()
    source = client.get_model_version(registry.model, str(version)).source or ""
    model_id = source.removeprefix("models:/")
    logged = client.get_logged_model(model_id)
    assert logged.params == {"optimizer.lr": "0.01"}, "as its run has"
    found = {metric.key: metric for metric in logged.metrics or []}
    assert found["test/mAP"].value == pytest.approx(candidate.scores.mean)
    assert {metric.dataset_digest for metric in found.values()} == {candidate.fingerprint[:16]}
    run = client.get_run(candidate.run_id)
    assert model_id in [one.model_id for one in run.inputs.model_inputs]
    versions = json.loads(logged.tags["mlflow.modelVersions"])
    assert versions == [{"name": registry.model, "version": str(version)}]


def test_aliases_follow_the_decision_and_its_reason_is_kept(
    registry: Registry, version: int
) -> None:
    def aliases() -> dict[str, str]:
        return dict(registry.tracking.client().get_registered_model("patches").aliases)

    registry.apply(version, Decision("challenger", "not yet"))
    assert {name: int(number) for name, number in aliases().items()} == {"challenger": version}
    registry.apply(version, Decision(None, "worse than RootSIFT"))
    assert aliases() == {}
    assert registry.decision_on("first") == (version, Decision(None, "worse than RootSIFT"))
    registry.apply(version, Decision("champion", "there was no champion"))
    champion = registry.champion()
    assert champion is not None
    assert int(champion.version) == version
    assert registry.champion_is(version)
    assert not registry.champion_is(None)
    assert registry.decision_on("first") == (version, Decision("champion", "there was no champion"))


def test_looks_are_kept_at_the_version_and_counted_for_each_test_set(
    registry: Registry, version: int
) -> None:
    def present() -> ModelVersion:
        return registry.tracking.client().get_model_version("patches", str(version))

    assert registry.looks(present(), "here") == {}
    assert [registry.record_look(present(), "here", name) for name in ("a", "b", "a")] == [1, 2, 1]
    assert registry.record_look(present(), "elsewhere", "b") == 1
    assert registry.looks(present(), "here") == {"a": 1, "b": 2}


def test_a_model_without_versions_is_not_said_to_be_missing(registry: Registry) -> None:
    registry.tracking.client().create_registered_model("hollow")
    with pytest.raises(UserError, match="all versions of hollow were deleted") as caught:
        Registry(tracking=registry.tracking, model="hollow").rollback()
    assert caught.value.code == "no-versions"


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_descriptors_from_uint8_and_float32(
    registry: Registry, version: int, pipeline: Pipeline, tiny: PatchStore, tmp_path: Path
) -> None:
    registry.apply(version, Decision("champion", "for this test"))
    patches = np.array(tiny.noisy[:3].reshape(-1, 32, 32))
    np.save(tmp_path / "patches.npy", patches)
    script = f"""
import mlflow, numpy as np
mlflow.set_tracking_uri({registry.tracking.uri!r})
model = mlflow.pyfunc.load_model("models:/patches@champion")
patches = np.load("patches.npy")
np.save("bytes.npy", model.predict(patches))
np.save("floats.npy", model.predict(patches.astype(np.float32)))
np.save("one.npy", model.predict(patches[:1]))
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, timeout=120)
    expected = describe(pipeline, patches)
    for name in ("bytes", "floats"):
        found = np.load(tmp_path / f"{name}.npy")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), expected[:1], atol=1e-5)


def test_the_artifact_holds_no_pickled_code(registry: Registry, version: int) -> None:
    mlflow.set_tracking_uri(registry.tracking.uri)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/patches/{version}"))
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"MLmodel", "pipeline.json", "weights.pt"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".py"))]
    saved = next(folder.rglob("pipeline.json"))
    assert json.loads(saved.read_text())["descriptor"]["kind"] == "l2net"


def test_an_unknown_model_is_one_sentence(registry: Registry) -> None:
    with pytest.raises(UserError, match="models:/patches@nobody") as caught:
        load_descriptor("models:/patches@nobody", registry.tracking.uri)
    assert caught.value.code == "model-not-loadable"
