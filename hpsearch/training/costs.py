"""Costs of a descriptor in use: parameters, operations, time and bytes of a patch."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from hpsearch.config import TrialConfig

if TYPE_CHECKING:  # a space file needs the names alone, without torch
    import torch
    from torch import nn

    from hpsearch.models import Pipeline

COST_PREFIX = "cost/"
PARAMETERS_METRIC = "cost/parameters"
FLOPS_METRIC = "cost/flops"
US_PER_PATCH_METRIC = "cost/us_per_patch"
DESCRIPTOR_BYTES_METRIC = "cost/descriptor_bytes"
COST_METRICS = (
    PARAMETERS_METRIC,
    FLOPS_METRIC,
    US_PER_PATCH_METRIC,
    DESCRIPTOR_BYTES_METRIC,
)
"""Metrics of reports of searches whose objectives or limits name one."""
TIMED_BATCH = 1024
"""Patches of a timed forward pass, as ``describe`` uses by default."""
TIMED_PASSES = 7
PROBE_PATCHES = 2
BYTES_PER_NUMBER = 4
"""Bytes of a number in a descriptor, float32."""


def measure_costs(
    pipeline: Pipeline, config: TrialConfig, wanted: Collection[str], device: torch.device
) -> dict[str, float]:
    """Measure the costs of describing a patch, by the name of the metric.

    The network is copied, so its mode and statistics stay. FLOPs are those of convolutions and
    products of matrices, where a multiplication and an addition are two. The time is the least of
    several forward passes of 1024 patches, since other trials may run on the device.

    Args:
        pipeline: denoiser, if any, and descriptor, before a compression.
        config: configuration of the trial.
        wanted: names of the metrics to measure.
        device: device of the pipeline.
    """
    if not wanted:
        return {}
    import torch

    network = copy.deepcopy(pipeline).eval()
    probe = torch.zeros(PROBE_PATCHES, 32, 32, dtype=torch.uint8, device=device)
    measured: dict[str, Callable[[], float]] = {
        PARAMETERS_METRIC: lambda: float(sum(p.numel() for p in network.parameters())),
        FLOPS_METRIC: lambda: _flops(network, probe) / PROBE_PATCHES,
        US_PER_PATCH_METRIC: lambda: _microseconds(network, device),
        DESCRIPTOR_BYTES_METRIC: lambda: float(
            BYTES_PER_NUMBER * _descriptor_dim(network, config, probe)
        ),
    }
    with torch.no_grad():
        return {name: measured[name]() for name in COST_METRICS if name in wanted}


def _descriptor_dim(network: nn.Module, config: TrialConfig, probe: torch.Tensor) -> int:
    if config.compression is not None:
        return config.compression.descriptor_dim
    return int(network(probe).shape[1])


def _flops(network: nn.Module, probe: torch.Tensor) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network(probe)
    return float(counter.get_total_flops())


def _microseconds(network: nn.Module, device: torch.device) -> float:
    """Least microseconds of a patch over several forward passes, after one that is not timed."""
    import numpy as np
    import torch

    batch = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (TIMED_BATCH, 32, 32), dtype=np.uint8)
    ).to(device)
    best = float("inf")
    for number in range(1 + TIMED_PASSES):
        _synchronize(device)
        started = time.perf_counter()
        network(batch).float().cpu()
        _synchronize(device)
        if number:
            best = min(best, time.perf_counter() - started)
    return 1e6 * best / TIMED_BATCH


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
