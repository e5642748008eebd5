"""Model artifacts: logging and loading of models in MLflow."""

import importlib.metadata
import io
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.artifacts import download_artifacts
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import Schema, TensorSpec

import hpsearch
from hpsearch.atomic_files import is_disk_full
from hpsearch.defaults import SPEC_FILE
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.redaction import redacted
from hpsearch.schema import from_json, to_json
from hpsearch.tracking.connection import TrackingServer, configure_client
from hpsearch.tracking.mlflow_errors import first_error_line
from hpsearch.tracking.mlflow_tags import FINGERPRINT_TAG, INPUT_KIND_TAG, SPLIT_TAG
from hpsearch.untrusted import reading

if TYPE_CHECKING:
    from hpsearch.models.serialization import PyfuncModel

LOADER_MODULE = "hpsearch.models.serialization"
"""Loader module that a registered model names."""
KNOWN_LOADERS = (LOADER_MODULE, "hpsearch.models.serving")
"""Loader modules that are accepted, with the former name from models of version 0.1.0."""


def load_descriptor(model: str, uri: str) -> "PyfuncModel":
    """Load a registered model (``models:/NAME@champion``) as a function of patches on the CPU.

    Raises:
        UserError: as ``download_model``, or if the model is damaged.
    """
    from hpsearch.models.serialization import PyfuncModel, load_pipeline

    with download_model(model, uri) as folder:
        return PyfuncModel(load_pipeline(folder))


@contextmanager
def download_model(model: str, uri: str) -> Iterator[Path]:
    """Download settings and weights of a registered model to a folder that the context removes.

    Raises:
        UserError: if there is no such model, version or alias; if hpsearch did not register it,
            or it contains code.
    """
    configure_client()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = Path(download_artifacts(artifact_uri=model, dst_path=scratch))
        except (MlflowException, OSError) as error:
            if is_disk_full(error):
                raise UserError(
                    f"{model} could not be loaded, because the disk of {scratch} is full; free "
                    "some space there, or name another temporary folder with TMPDIR",
                    code="disk-full",
                ) from error
            raise UserError(
                f"{model} could not be loaded from {redacted(uri)}: "
                f"{first_error_line(error).rstrip('.')}; "
                "list models and aliases with `hpsearch ui`",
                code="model-not-loadable",
            ) from error
        yield pipeline_folder(folder, name=model)


def pipeline_folder(folder: Path, *, name: str) -> Path:
    """Folder of the settings and weights in a downloaded MLflow model.

    Raises:
        UserError: if it names an unknown loader, contains code, or points outside its folder.
    """
    metadata = _pyfunc_flavor(folder, name)
    if metadata.get("loader_module") not in KNOWN_LOADERS:
        raise UserError(
            f"{name} names the loader {metadata.get('loader_module')!r}, so hpsearch did "
            "not register it; none of its code was run: name a model that a search registered",
            code="unknown-loader",
        )
    if metadata.get("code"):
        raise UserError(
            f"{name} contains code in {metadata['code']!r}, which a model of hpsearch never does; "
            "none of it was run: register the model again",
            code="artifact-with-code",
        )
    with reading(folder / "MLmodel", "description of a model", "register the model again"):
        root = folder.resolve()
        inside = (root / str(metadata.get("data", ""))).resolve()
    if not inside.is_relative_to(root):
        raise UserError(
            f"{name} points outside its own folder; register the model again",
            code="artifact-outside-folder",
        )
    return inside


def _pyfunc_flavor(folder: Path, name: str) -> dict[str, Any]:
    """Python-function flavor of an artifact's MLmodel file; empty if it has none."""
    try:
        flavours = Model.load(os.fspath(folder)).flavors
        return dict(flavours.get("python_function") or {})
    except Exception as error:  # parsing an untrusted file may raise any exception
        raise UserError(
            f"{name} has no readable MLmodel file; register the model again",
            code="unreadable-artifact",
        ) from error


PATCHES_SPEC = TensorSpec(
    np.dtype(object), (-1,), "patches (uint8 or float32, N×32×32, gray 0..255)"
)
SCORES_ARTIFACT, CARD_ARTIFACT = "test_scores.json", "README.md"
MAX_DESCRIPTION_CHARS = 5_000
"""Maximum length of a description in MLflow's database."""


@dataclass(frozen=True, kw_only=True)
class ModelArtifact:
    """Trained pipeline with its test scores, ready to be logged."""

    folder: Path
    """Folder of a pipeline saved by ``models.serialization``."""
    run_id: str
    search: str
    scores: Scores
    fingerprint: str
    example: np.ndarray
    """Input example: a few patches, uint8 (n, 32, 32)."""
    descriptor_dim: int
    """Length of a descriptor."""
    split: str = ""
    input_kind: str = "noisy"
    """Kind of patches that it was evaluated on: ``noisy`` or ``clean``."""
    card: str = ""
    """Model card, Markdown."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Additional tags of the version."""

    @property
    def version_tags(self) -> dict[str, str]:
        """All tags of the model version."""
        headlines = ("verification", "matching", "retrieval", "mean")
        return {
            "search": self.search,
            FINGERPRINT_TAG: self.fingerprint,
            SPLIT_TAG: self.split,
            INPUT_KIND_TAG: self.input_kind,
            **{f"test/{name}": f"{getattr(self.scores, name):.4f}" for name in headlines},
            **self.tags,
        }


def log_model(artifact: ModelArtifact) -> ModelInfo:
    """Log pipeline, card and scores to the model's run."""
    with _reopen_run(artifact.run_id), tempfile.TemporaryDirectory() as folder:
        scores = Path(folder) / SCORES_ARTIFACT
        scores.write_text(to_json(artifact.scores.to_dict()), "utf-8")
        mlflow.log_artifact(str(scores))
        if artifact.card:
            (artifact.folder / CARD_ARTIFACT).write_text(artifact.card, "utf-8")
            mlflow.log_text(artifact.card, "model_card.md")
        logged = mlflow.pyfunc.log_model(
            name="pipeline",
            loader_module=LOADER_MODULE,
            data_path=str(artifact.folder),
            signature=_signature(artifact.descriptor_dim),
            input_example=artifact.example,
            pip_requirements=_requirements(artifact.folder),
        )
        _link_results(logged.model_id, artifact)
    return logged


def _requirements(folder: Path) -> list[str]:
    """Packages that load a pipeline; a program needs onnxruntime in addition."""
    found = [f"hpsearch=={hpsearch.__version__}"]
    spec = from_json((folder / SPEC_FILE).read_text("utf-8"), folder / SPEC_FILE)
    if "program" in spec:
        found.append(f"onnxruntime=={importlib.metadata.version('onnxruntime')}")
    return found


def _link_results(model_id: str, artifact: ModelArtifact) -> None:
    """Link test scores and test patches to a logged model, so that MLflow compares it.

    MLflow itself copies the settings of the run, which is active, to the model.
    """
    client = mlflow.MlflowClient()
    run, digest = client.get_run(artifact.run_id), artifact.fingerprint[:16]
    inputs = run.inputs.dataset_inputs if run.inputs else []
    known = [one.dataset for one in inputs if one.dataset.digest == digest]
    dataset = known[0] if known else Dataset("patches", digest, "local", "{}")
    client.log_inputs(
        artifact.run_id,
        datasets=[DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "test")])],
        models=[LoggedModelInput(model_id)],
    )
    scores = {f"test/{name}": value for name, value in artifact.scores.flat().items()}
    now = time.time_ns() // 1_000_000
    metrics = [
        Metric(name, value, now, 0, model_id, dataset.name, dataset.digest, artifact.run_id)
        for name, value in scores.items()
        if math.isfinite(value)
    ]
    client.log_batch(artifact.run_id, metrics=metrics)


@contextmanager
def _reopen_run(run_id: str) -> Iterator[None]:
    """Log to a run that has ended; its status and end time stay unchanged."""
    client = mlflow.MlflowClient()
    before = client.get_run(run_id).info
    silent = redirect_stderr(io.StringIO())  # the caller prints its own message
    try:
        with silent, mlflow.start_run(run_id=run_id):
            yield
    finally:
        client.set_terminated(run_id, status=before.status, end_time=before.end_time)


@contextmanager
def run_of_model(
    tracking: TrackingServer, name: str, *, tags: Mapping[str, str], scores: Scores
) -> Iterator[str]:
    """MLflow run of a model that belongs to no search; it ends with the block, however that ends.

    Args:
        tracking: server or database of the run.
        name: name of the run.
        tags: tags of the run.
        scores: test scores, which become metrics.
    """
    client = tracking.client()
    run = client.create_run(tracking.experiment_id(), tags=dict(tags), run_name=name)
    status = "KILLED"
    try:
        for key, value in scores.flat().items():
            client.log_metric(run.info.run_id, f"test/{key}", value)
        yield run.info.run_id
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        client.set_terminated(run.info.run_id, status=status)


def truncate_description(text: str) -> str:
    """Truncate a description to what MLflow's database holds, and escape HTML."""
    text = text.replace("<", "&lt;")
    return text if len(text) <= MAX_DESCRIPTION_CHARS else f"{text[: MAX_DESCRIPTION_CHARS - 2]} …"


def _signature(descriptor_dim: int) -> ModelSignature:
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, descriptor_dim))])
    return ModelSignature(inputs=Schema([PATCHES_SPEC]), outputs=outputs)
