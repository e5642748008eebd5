"""Weights to begin with: a baseline that trials share as an artifact."""

import io
from typing import Any

import torch

from hpsearch.config import TrialConfig, WarmStart
from hpsearch.data.store import Patches
from hpsearch.training.artifacts import Artifacts, NotTrained, artifact_key
from hpsearch.training.devices import Compute
from hpsearch.training.inputs import Feed
from hpsearch.training.learner import Learner
from hpsearch.training.loop import fit

CODE = 1
"""Raise when the same settings would give other weights, so that old artifacts are left alone."""


def warm_weights(
    config: TrialConfig, train: Patches, feed: Feed, artifacts: Artifacts, compute: Compute
) -> dict[str, torch.Tensor] | None:
    """State dict that a trial begins with, found, or made and published; None for random weights.

    Raises:
        NotTrained: if the baseline collapses or diverges.
    """
    warm = config.warm_start
    if warm is None:
        return None

    def make() -> bytes:
        learner = Learner(_baseline(config, warm), train.sequence_of, feed, compute)
        for report in fit(learner, patches=warm.patches, report_every=warm.patches):
            if report.status != "completed":
                raise NotTrained(
                    f"the warm start {report.status}: {report.reason}; give it another learning "
                    "rate or begin with random weights"
                )
        buffer = io.BytesIO()
        state = learner.network.state_dict()
        torch.save({name: value.cpu() for name, value in state.items()}, buffer)
        return buffer.getvalue()

    key = artifact_key(kind="warm start", **_depends(config, warm, train))
    stored = artifacts.found_or_made(key, make)
    return torch.load(io.BytesIO(stored), map_location=compute.device, weights_only=True)


def _baseline(config: TrialConfig, warm: WarmStart) -> TrialConfig:
    return TrialConfig(
        input=config.input,
        descriptor=config.descriptor,
        loss=warm.loss,
        sampler=warm.sampler,
        optimiser=warm.optimiser,
        patches=warm.patches,
        seed=warm.seed,
    )


def _depends(config: TrialConfig, warm: WarmStart, train: Patches) -> dict[str, Any]:
    baseline = _baseline(config, warm)
    return {
        "config": baseline.model_dump(mode="json", exclude={"evaluate_on", "warm_start"}),
        "patches": train.store.fingerprint,
        "sequences": list(train.names),
        "code": CODE,
    }
