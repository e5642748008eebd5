"""The model registry: a version for every winner, and an alias for the one to use.

A model is saved as MLflow's Python function with a loader from this package: its artifact holds
settings and weights, no pickled code. The signature names one input of any type, because MLflow
would refuse either uint8 or float32 patches under a typed one.
"""

import io
import json
import logging
import os
import tempfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

import hpsearch
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.tracking.decision import Decision
from hpsearch.tracking.publisher import Tracking

CHAMPION, CHALLENGER = "champion", "challenger"
Alias = Literal["champion", "challenger"]
PATCHES = TensorSpec(np.dtype(object), (-1,), "patches (uint8 or float32, N×32×32, grey 0..255)")
FINGERPRINT = "patches.fingerprint"
SCORES = "test_scores.json"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained pipeline with what it scored on test."""

    folder: Path
    """A pipeline saved by ``models.serving``."""
    run_id: str
    search: str
    scores: Scores
    fingerprint: str
    example: np.ndarray
    """A few patches, uint8 (n, 32, 32)."""
    dimensions: int
    """Numbers in a descriptor."""


@dataclass(frozen=True, kw_only=True)
class Registry:
    """Versions of one registered model."""

    tracking: Tracking
    model: str

    def register(self, candidate: Candidate) -> int:
        """Log the pipeline under its run and add it as a new version; no alias moves."""
        self._point_mlflow_here()
        with (
            redirect_stderr(io.StringIO()),  # MLflow prints what our caller says in its own words
            mlflow.start_run(run_id=candidate.run_id),
            tempfile.TemporaryDirectory() as folder,
        ):
            scores = Path(folder) / SCORES
            scores.write_text(json.dumps(candidate.scores.to_dict()))
            mlflow.log_artifact(str(scores))
            info = mlflow.pyfunc.log_model(
                name="pipeline",
                loader_module="hpsearch.models.serving",
                data_path=str(candidate.folder),
                signature=_signature(candidate.dimensions),
                input_example=candidate.example,
                pip_requirements=[f"hpsearch=={hpsearch.__version__}"],
                registered_model_name=self.model,
            )
        version = info.registered_model_version
        assert version is not None, "a registered name was given"
        self._tag(version, _facts(candidate))
        return version

    def champion(self) -> ModelVersion | None:
        """The version that bears the alias, if one does."""
        try:
            return self._client().get_model_version_by_alias(self.model, CHAMPION)
        except MlflowException:
            return None

    def version_of(self, search: str) -> ModelVersion | None:
        """The latest version that a search registered."""
        try:
            found = self._client().search_model_versions(f"name = '{self.model}'")
        except MlflowException:
            return None
        own = [version for version in found if version.tags.get("search") == search]
        return max(own, key=lambda version: int(version.version), default=None)

    def decision_on(self, search: str) -> tuple[int, Alias, Decision] | None:
        """The version that a search registered, its alias then, and why; None before that."""
        version = self.version_of(search)
        if version is None or "decision" not in version.tags:
            return None
        promoted = version.tags["decision"] == CHAMPION
        alias: Alias = CHAMPION if promoted else CHALLENGER
        return int(version.version), alias, Decision(promoted, version.tags["reason"])

    def scores(self, version: ModelVersion) -> Scores:
        """What a version scored on test when it was registered.

        Raises:
            UserError: if its run or its scores are gone.
        """
        self._point_mlflow_here()
        try:
            path = download_artifacts(run_id=version.run_id, artifact_path=SCORES)
        except (MlflowException, OSError) as error:
            raise UserError(
                f"the test scores of {self.model} version {version.version} are gone with its "
                "run; move the alias in the MLflow UI, or register a new search"
            ) from error
        return Scores.from_dict(json.loads(Path(path).read_text()))

    def apply(self, version: int, decision: Decision) -> Alias:
        """Move the alias that the decision gives, and write down why."""
        alias: Alias = CHAMPION if decision.promote else CHALLENGER
        self._client().set_registered_model_alias(self.model, alias, str(version))
        self._tag(version, {"decision": alias, "reason": decision.reason})
        self._client().update_model_version(self.model, str(version), decision.reason)
        return alias

    def _tag(self, version: int, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self._client().set_model_version_tag(self.model, str(version), key, value)

    def _client(self) -> mlflow.MlflowClient:
        return self.tracking.client()

    def _point_mlflow_here(self) -> None:
        mlflow.set_tracking_uri(self.tracking.uri)
        mlflow.set_registry_uri(self.tracking.uri)


def load_descriptor(model: str, uri: str) -> Any:
    """A registered model (``models:/NAME@champion``) as a function of patches.

    Raises:
        UserError: if there is no such model, version or alias.
    """
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        return mlflow.pyfunc.load_model(model)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"{model} cannot be loaded from {uri}: {str(error).splitlines()[0]}; "
            "`hpsearch ui` shows which models and aliases there are"
        ) from error


def quieten_mlflow() -> None:
    """No telemetry, no progress bars, no log of database tables, short waits for a dead server."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def _signature(dimensions: int) -> ModelSignature:
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, dimensions))])
    return ModelSignature(inputs=Schema([PATCHES]), outputs=outputs)


def _facts(candidate: Candidate) -> dict[str, str]:
    headlines = ("verification", "matching", "retrieval", "mean")
    scores = {f"test/{name}": f"{getattr(candidate.scores, name):.4f}" for name in headlines}
    return {"search": candidate.search, FINGERPRINT: candidate.fingerprint, **scores}
