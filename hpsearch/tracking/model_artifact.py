"""Model artifacts: logging and loading of models in MLflow."""

import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import Schema, TensorSpec

import hpsearch
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.models.serialization import PyfuncModel, load_pipeline
from hpsearch.redaction import redacted
from hpsearch.schema import to_json
from hpsearch.tracking.connection import first_error_line
from hpsearch.untrusted import reading

LOADER_MODULE = "hpsearch.models.serialization"
"""The module that a registered model names as its loader."""
KNOWN_LOADERS = (LOADER_MODULE, "hpsearch.models.serving")
"""With the former name that models registered by 0.1.0 carry."""


def load_descriptor(model: str, uri: str) -> PyfuncModel:
    """A registered model (``models:/NAME@champion``) as a function of patches, on the CPU.

    Raises:
        UserError: as ``download_model``, or if it is damaged.
    """
    with download_model(model, uri) as folder:
        return PyfuncModel(load_pipeline(folder))


@contextmanager
def download_model(model: str, uri: str) -> Iterator[Path]:
    """Settings and weights of a registered model, for as long as the context is open.

    Raises:
        UserError: if there is no such model, version or alias; if it is not one of ours, or
            carries code.
    """
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = Path(download_artifacts(artifact_uri=model, dst_path=scratch))
        except (MlflowException, OSError) as error:
            raise UserError(
                f"{model} cannot be loaded from {redacted(uri)}: "
                f"{first_error_line(error).rstrip('.')}; "
                "`hpsearch ui` shows which models and aliases there are"
            ) from error
        yield pipeline_folder(folder, name=model)


def pipeline_folder(folder: Path, *, name: str) -> Path:
    """Where a downloaded MLflow model keeps its settings and weights.

    Raises:
        UserError: if it names another loader than ours, carries code, or points outside itself.
    """
    metadata = _pyfunc_flavor(folder, name)
    if metadata.get("loader_module") not in KNOWN_LOADERS:
        raise UserError(
            f"{name} asks to be loaded by {metadata.get('loader_module')!r}, so it was not "
            "registered "
            "by hpsearch and nothing of it was run; name a model that a search registered"
        )
    if metadata.get("code"):
        raise UserError(
            f"{name} carries code of its own in {metadata['code']!r}, which a model of hpsearch "
            "never "
            "does; nothing of it was run: register the model again"
        )
    with reading(folder / "MLmodel", "description of a model", "register the model again"):
        root = folder.resolve()
        inside = (root / str(metadata.get("data", ""))).resolve()
    if not inside.is_relative_to(root):
        raise UserError(f"{name} points outside its own folder; register the model again")
    return inside


def _pyfunc_flavor(folder: Path, name: str) -> dict[str, Any]:
    """What the artifact says of itself as a Python function; empty if it is none."""
    try:
        flavours = Model.load(os.fspath(folder)).flavors
        return dict(flavours.get("python_function") or {})
    except Exception as error:  # a reader of crafted bytes may raise anything
        raise UserError(f"{name} has no readable MLmodel file; register the model again") from error


PATCHES_SPEC = TensorSpec(
    np.dtype(object), (-1,), "patches (uint8 or float32, N×32×32, grey 0..255)"
)
FINGERPRINT_TAG, SPLIT_TAG, INPUT_KIND_TAG = "patches.fingerprint", "patches.split", "patches.given"
"""Tags of a version: what it was scored on. Two versions that agree in all can be compared."""
SCORES_ARTIFACT, CARD_ARTIFACT = "test_scores.json", "README.md"
MAX_DESCRIPTION_CHARS = 5_000
"""Characters of a description that MLflow's database holds."""


@dataclass(frozen=True, kw_only=True)
class ModelArtifact:
    """A trained pipeline with what it scored on test."""

    folder: Path
    """A pipeline saved by ``models.serialization``."""
    run_id: str
    search: str
    scores: Scores
    fingerprint: str
    example: np.ndarray
    """A few patches, uint8 (n, 32, 32)."""
    descriptor_dim: int
    """Numbers in a descriptor."""
    split: str = ""
    input_kind: str = "noisy"
    """Which patches it was scored on."""
    card: str = ""
    """Markdown that goes with the model."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """More tags for the version."""

    @property
    def version_tags(self) -> dict[str, str]:
        """Tags of its version."""
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
    """Log pipeline, card and scores with the candidate's run, where MLflow points."""
    with _reopen_run(artifact.run_id), tempfile.TemporaryDirectory() as folder:
        scores = Path(folder) / SCORES_ARTIFACT
        scores.write_text(to_json(artifact.scores.to_dict()))
        mlflow.log_artifact(str(scores))
        if artifact.card:
            (artifact.folder / CARD_ARTIFACT).write_text(artifact.card)
            mlflow.log_text(artifact.card, "model_card.md")
        return mlflow.pyfunc.log_model(
            name="pipeline",
            loader_module=LOADER_MODULE,
            data_path=str(artifact.folder),
            signature=_signature(artifact.descriptor_dim),
            input_example=artifact.example,
            pip_requirements=[f"hpsearch=={hpsearch.__version__}"],
        )


@contextmanager
def _reopen_run(run_id: str) -> Iterator[None]:
    """Log into a run that has ended; its state and its end stay as they were."""
    client = mlflow.MlflowClient()
    before = client.get_run(run_id).info
    silent = redirect_stderr(io.StringIO())  # MLflow prints what our caller says in its own words
    try:
        with silent, mlflow.start_run(run_id=run_id):
            yield
    finally:
        client.set_terminated(run_id, status=before.status, end_time=before.end_time)


def truncate_description(text: str) -> str:
    """A description that fits into MLflow's database, without HTML: nothing of ours is."""
    text = text.replace("<", "&lt;")
    return text if len(text) <= MAX_DESCRIPTION_CHARS else f"{text[: MAX_DESCRIPTION_CHARS - 2]} …"


def _signature(descriptor_dim: int) -> ModelSignature:
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, descriptor_dim))])
    return ModelSignature(inputs=Schema([PATCHES_SPEC]), outputs=outputs)
