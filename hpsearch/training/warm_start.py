"""Warm start: the weights of a descriptor that was trained on random triplets first."""

import io
from typing import Any

import torch

from hpsearch.config import TrialConfig, WarmStart
from hpsearch.config.base import dump_former_names
from hpsearch.data.patch_store import Patches
from hpsearch.models import build_descriptor
from hpsearch.training.artifact_cache import ArtifactCache, DependencyFailedError, artifact_key
from hpsearch.training.descriptor_trainer import DescriptorTrainer
from hpsearch.training.devices import Compute
from hpsearch.training.inputs import InputFn
from hpsearch.training.loop import fit

WARM_START_CACHE_VERSION = 1
"""Version in cache keys; increment it when equal settings would give other weights."""


def warm_weights(
    config: TrialConfig, train: Patches, input_fn: InputFn, cache: ArtifactCache, compute: Compute
) -> dict[str, torch.Tensor] | None:
    """State dict of a warm start from the cache, trained if it is missing; None without warm start.

    Raises:
        DependencyFailedError: if the training collapses or diverges.
    """
    warm = config.warm_start
    if warm is None:
        return None

    def train_baseline() -> bytes:
        baseline, rows = _warm_start_config(config, warm), train.first_rows
        trainer = DescriptorTrainer(baseline, train.sequence_of, input_fn, compute, rows)
        for report in fit(trainer, patches=warm.patches, report_every=warm.patches):
            if report.status != "completed":
                raise DependencyFailedError(
                    f"the warm start {report.status}: {report.reason}; use another learning "
                    "rate or start with random weights"
                )
        buffer = io.BytesIO()
        state = trainer.network.state_dict()
        torch.save({name: value.cpu() for name, value in state.items()}, buffer)
        return buffer.getvalue()

    key = artifact_key(kind="warm start", **_warm_start_dependencies(config, warm, train))
    stored = cache.get_or_compute(key, train_baseline)
    with cache.reading(key):
        found = torch.load(io.BytesIO(stored), map_location=compute.device, weights_only=True)
        build_descriptor(config.descriptor, seed=0).load_state_dict(found)
    return found


def _warm_start_config(config: TrialConfig, warm: WarmStart) -> TrialConfig:
    return TrialConfig(
        input=config.input,
        descriptor=config.descriptor,
        loss=warm.loss,
        sampler=warm.sampler,
        optimizer=warm.optimizer,
        patches=warm.patches,
        seed=warm.seed,
    )


def _warm_start_dependencies(
    config: TrialConfig, warm: WarmStart, train: Patches
) -> dict[str, Any]:
    baseline = _warm_start_config(config, warm)
    return {
        "config": dump_former_names(baseline, exclude=("evaluate_on", "warm_start")),
        "patches": train.store.fingerprint,
        "sequences": list(train.names),
        "code": WARM_START_CACHE_VERSION,
    }
