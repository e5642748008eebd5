"""A trained pipeline as MLflow keeps it.

It is saved as MLflow's Python function with a loader from this package: the artifact holds settings
and weights, no pickled code. It therefore loads where this package is installed and nowhere else.
MLflow could ship the code with the model (``code_paths``), but then loading a model would run
whatever lies in its artifact. The signature names one input of any type, because MLflow would
refuse either uint8 or float32 patches under a typed one.
"""

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import numpy as np
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import Schema, TensorSpec

import hpsearch
from hpsearch.evaluation import Scores

PATCHES = TensorSpec(np.dtype(object), (-1,), "patches (uint8 or float32, N×32×32, grey 0..255)")
FINGERPRINT, SPLIT, GIVEN = "patches.fingerprint", "patches.split", "patches.given"
"""Tags of a version: what it was scored on. Two versions that agree in all can be compared."""
SCORES, CARD = "test_scores.json", "README.md"
LONGEST = 5_000
"""Characters of a description that MLflow's database holds."""


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
    split: str = ""
    given: str = "noisy"
    """Which patches it was scored on."""
    card: str = ""
    """Markdown that goes with the model."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """More tags for the version."""

    @property
    def facts(self) -> dict[str, str]:
        """Tags of its version."""
        headlines = ("verification", "matching", "retrieval", "mean")
        return {
            "search": self.search,
            FINGERPRINT: self.fingerprint,
            SPLIT: self.split,
            GIVEN: self.given,
            **{f"test/{name}": f"{getattr(self.scores, name):.4f}" for name in headlines},
            **self.tags,
        }


def log_candidate(candidate: Candidate) -> ModelInfo:
    """Log pipeline, card and scores with the candidate's run, where MLflow points."""
    with _reopened(candidate.run_id), tempfile.TemporaryDirectory() as folder:
        scores = Path(folder) / SCORES
        scores.write_text(json.dumps(candidate.scores.to_dict()))
        mlflow.log_artifact(str(scores))
        if candidate.card:
            (candidate.folder / CARD).write_text(candidate.card)
            mlflow.log_text(candidate.card, "model_card.md")
        return mlflow.pyfunc.log_model(
            name="pipeline",
            loader_module="hpsearch.models.serving",
            data_path=str(candidate.folder),
            signature=_signature(candidate.dimensions),
            input_example=candidate.example,
            pip_requirements=[f"hpsearch=={hpsearch.__version__}"],
        )


@contextmanager
def _reopened(run_id: str) -> Iterator[None]:
    """Log into a run that has ended; its state and its end stay as they were."""
    client = mlflow.MlflowClient()
    before = client.get_run(run_id).info
    silent = redirect_stderr(io.StringIO())  # MLflow prints what our caller says in its own words
    try:
        with silent, mlflow.start_run(run_id=run_id):
            yield
    finally:
        client.set_terminated(run_id, status=before.status, end_time=before.end_time)


def shortened(text: str) -> str:
    """A description that fits into MLflow's database."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"


def _signature(dimensions: int) -> ModelSignature:
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, dimensions))])
    return ModelSignature(inputs=Schema([PATCHES]), outputs=outputs)
