"""Training steps to be timed: of L2-Net and of the shallow U-Net, on random patches."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_roofline import seconds, wait
from torch import Tensor

from hpsearch.config import (
    Adam,
    BatchHard,
    DenoiserTraining,
    HardMargin,
    L2Net,
    PKSampler,
    TrialConfig,
)
from hpsearch.models import build_denoiser
from hpsearch.training.denoiser_training import DenoiserTask
from hpsearch.training.descriptor_trainer import DescriptorTrainer
from hpsearch.training.devices import Compute, GatherFn, device_resident
from hpsearch.training.inputs import constant_input
from hpsearch.training.loop import Progress

Job = tuple[Callable[..., Callable[[], object]], tuple[Any, ...]]
"""Function of one step, and its inputs."""


def pixels(points: int) -> np.ndarray:
    """Random gray levels, 16 views a point."""
    return np.random.default_rng(0).integers(256, size=(16 * points, 32, 32), dtype=np.uint8)


def trial(
    *,
    width: float,
    batch: int,
    seed: int = 0,
    dropout: float = 0.3,
    lr: float = 1e-3,
    margin: float = 1.0,
) -> TrialConfig:
    """Batch hard on S×4 patches."""
    return TrialConfig(
        descriptor=L2Net(width=width, dropout=dropout),
        loss=BatchHard(margin=HardMargin(alpha=margin)),
        sampler=PKSampler(groups=batch // 4, views=4),
        optimizer=Adam(lr=lr),
        patches=10**12,
        seed=seed,
    )


class Stepping:
    """A learner that is called for its next step."""

    def __init__(
        self, config: TrialConfig, points: int, gather: GatherFn, compute: Compute
    ) -> None:
        sequence_of = np.arange(points) * 8 // points
        self.learner = DescriptorTrainer(config, sequence_of, constant_input(gather), compute)
        self.done = 0

    def __call__(self) -> Tensor:
        loss, _ = self.learner.step(Progress(seen=0, step=self.done))
        self.done += 1
        return loss


def once(job: Job) -> None:
    """The first step of a measurement, in a process of its own."""
    make, arguments = job
    torch.set_num_threads(1)
    config: Any = importlib.import_module("torch._inductor.config")
    config.compile_threads = 1  # there are as many processes as cores
    make(*arguments)()


def step_of(compute: Compute, width: float, batch: int, points: int) -> Callable[[], object]:
    """A step of L2-Net."""
    points = max(points, batch // 4)
    gather = device_resident(pixels(points), compute.device)
    return Stepping(trial(width=width, batch=batch), points, gather, compute)


def denoiser_of(compute: Compute, batch: int, points: int) -> Callable[[], object]:
    """A step of the shallow U-Net."""
    network = compute.to_device(build_denoiser(DenoiserTraining().network, seed=0))
    gray = pixels(points)
    feeds = (device_resident(a, compute.device) for a in (gray, gray[::-1].copy()))
    config = DenoiserTraining(batch=batch, patches=10**12)
    task = DenoiserTask(config, network, *feeds, num_rows=len(gray))
    task.launcher = compute.launcher()
    if compute.compiled:
        task.network = torch.compile(network)  # type: ignore[assignment]
    return lambda: task.step(Progress(step=0))


def warm(step: Callable[[], object], device: torch.device) -> float:
    """Seconds a step, after compilation and capture."""
    for _ in range(6):
        step()
    wait(device)
    return seconds(step, device)


def reset(device: torch.device) -> None:
    """Free what the last measurement held, and forget what was compiled for other shapes."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
