"""A job on the tiny set."""

from dataclasses import replace

import pytest

from hpsearch.config import ComputeConfig
from hpsearch.training.trial import TrialEnvironment


@pytest.fixture
def job(job: TrialEnvironment) -> TrialEnvironment:
    return replace(job, report_every=64, computing=ComputeConfig(device="cpu"))
