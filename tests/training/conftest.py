"""A job on the tiny set."""

from dataclasses import replace

import pytest

from hpsearch.config import Computing
from hpsearch.training.trial import Job


@pytest.fixture
def job(job: Job) -> Job:
    return replace(job, report_every=64, computing=Computing(device="cpu"))
