"""A job on the tiny set."""

from pathlib import Path

import pytest

from hpsearch.config import Computing
from hpsearch.data.store import PatchStore
from hpsearch.training.artifacts import Artifacts
from hpsearch.training.trial import Job


@pytest.fixture
def job(tiny: PatchStore, tmp_path: Path) -> Job:
    return Job(
        store=tiny,
        split=tiny.split(),
        artifacts=Artifacts(str(tmp_path / "artifacts")),
        report_every=64,
        validation_points=8,
        computing=Computing(device="cpu"),
    )
