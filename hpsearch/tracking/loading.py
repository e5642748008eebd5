"""From the registry to a pipeline, running nothing that lies in an artifact.

MLflow's own ``load_model`` imports whatever module an artifact names and puts the artifact's code
on the path. So our commands do not call it: they look at what the artifact says of itself, refuse
it unless it is one of ours, and read settings and weights as data.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import yaml
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from hpsearch.errors import UserError
from hpsearch.models.serving import ServedPipeline, load_pipeline
from hpsearch.tracking.credentials import without_credentials
from hpsearch.tracking.refusals import first_line

LOADER = "hpsearch.models.serving"
"""The module that a registered model names as its loader."""


def load_descriptor(model: str, uri: str) -> ServedPipeline:
    """A registered model (``models:/NAME@champion``) as a function of patches, on the CPU.

    Raises:
        UserError: as ``downloaded``, or if it is damaged.
    """
    with downloaded(model, uri) as folder:
        return ServedPipeline(load_pipeline(folder))


@contextmanager
def downloaded(model: str, uri: str) -> Iterator[Path]:
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
                f"{model} cannot be loaded from {without_credentials(uri)}: "
                f"{first_line(error).rstrip('.')}; "
                "`hpsearch ui` shows which models and aliases there are"
            ) from error
        yield pipeline_folder(folder, name=model)


def pipeline_folder(folder: Path, *, name: str) -> Path:
    """Where a downloaded MLflow model keeps its settings and weights.

    Raises:
        UserError: if it names another loader than ours, carries code, or points outside itself.
    """
    says = _flavour(folder, name)
    if says.get("loader_module") != LOADER:
        raise UserError(
            f"{name} asks to be loaded by {says.get('loader_module')!r}, so it was not registered "
            "by hpsearch and nothing of it was run; name a model that a search registered"
        )
    if says.get("code"):
        raise UserError(
            f"{name} carries code of its own in {says['code']!r}, which a model of hpsearch never "
            "does; nothing of it was run: register the model again"
        )
    root = folder.resolve()
    inside = (root / str(says.get("data", ""))).resolve()
    if not inside.is_relative_to(root):
        raise UserError(f"{name} points outside its own folder; register the model again")
    return inside


def _flavour(folder: Path, name: str) -> dict[str, Any]:
    """What the artifact says of itself as a Python function; empty if it is none."""
    try:
        flavours = Model.load(os.fspath(folder)).flavors
    except (MlflowException, OSError, TypeError, KeyError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{name} has no readable MLmodel file; register the model again") from error
    return flavours.get("python_function") or {}
