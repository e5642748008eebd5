"""Checks that a GPU gives what the CPU gives; each yields one number and the bound it must keep.

Patches are random gray levels. "Relative" is the length of the difference over the length of what
the CPU gives.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gpu_trials as trials
import numpy as np
import torch
from gpu_steps import Stepping, pixels, trial
from torch import Tensor, nn

from hpsearch.config import (
    SGD,
    Adam,
    Augmentation,
    BatchAll,
    BatchHard,
    Contrastive,
    DenoiserTraining,
    DnCNN,
    HardNet,
    L2Net,
    Pairs,
    Percentile,
    PKSampler,
    RandomTriplets,
    ShallowUNet,
    SoftMargin,
    TrialConfig,
    Triplet,
    UNet,
)
from hpsearch.losses import build_loss
from hpsearch.models import build_denoiser, build_descriptor
from hpsearch.training.denoiser_training import DenoiserTask
from hpsearch.training.descriptor_trainer import DescriptorTrainer
from hpsearch.training.devices import Compute, device_resident
from hpsearch.training.inputs import constant_input
from hpsearch.training.loop import Progress
from hpsearch.training.trial import to_cpu

CPU = torch.device("cpu")
RATE = 2**-10
"""Exact in float32, so that a rate held as a tensor is the one held as a number."""
LOSSES: dict[str, tuple[Any, Any]] = {
    "batch hard": (BatchHard(margin=SoftMargin()), PKSampler(groups=16, views=4)),
    "batch all": (BatchAll(average="nonzero"), PKSampler(groups=16, views=4)),
    "triplet": (Triplet(), RandomTriplets(batch=32)),
    "HardNet": (HardNet(), Pairs(batch=32)),
    "percentile": (Percentile(quantile=5), Pairs(batch=64)),
    "contrastive": (Contrastive(), Pairs(batch=32)),
}
GRAPHED: dict[str, dict[str, Any]] = {
    **{
        name: {"loss": loss, "sampler": sampler, "descriptor": L2Net(width=0.25, unit_norm=True)}
        for name, (loss, sampler) in LOSSES.items()
    },
    "SGD": {"optimizer": SGD(lr=RATE, momentum=0.9)},
    "augmented": {"augmentation": Augmentation(turns="point", crop=0.2, contrast=0.1)},
}


@dataclass(frozen=True)
class Check:
    """A number that must not exceed its bound."""

    name: str
    found: float
    bound: float

    @property
    def passed(self) -> bool:
        """True if the check passed; False if the number is NaN."""
        return self.found <= self.bound


def checks(device: torch.device, *, steps: int) -> Iterator[Check]:
    """Yield every check as soon as it is known; trainings take ``steps`` steps."""
    with full_precision():
        yield from networks(device)
        yield from losses(device)
        yield from training(device, steps)
        yield from mapped(device, steps)
    yield from repeats(device, steps)
    if device.type == "cuda":
        yield from graphs(device, steps)
    yield from checkpoints(device)


@contextmanager
def full_precision() -> Iterator[None]:
    """Context without TF32 products."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def networks(device: torch.device) -> Iterator[Check]:
    """Outputs in evaluation mode, float32."""
    made: dict[str, Callable[[], nn.Module]] = {
        "L2-Net": lambda: build_descriptor(L2Net(), seed=1),
        "L2-Net, unit, patch norm": lambda: build_descriptor(
            L2Net(unit_norm=True, input_norm=True), seed=1
        ),
        "shallow U-Net": lambda: build_denoiser(ShallowUNet(), seed=1),
        "U-Net": lambda: build_denoiser(UNet(channels=16), seed=1),
        "DnCNN": lambda: build_denoiser(DnCNN(depth=5), seed=1),
    }
    x = torch.from_numpy(gray(1, 4)).float().reshape(-1, 1, 32, 32)
    for name, make in made.items():
        here, there = (Compute(device=d).to_device(make().eval()) for d in (CPU, device))
        with torch.no_grad():
            yield Check(f"{name}: output, relative", apart(there(x.to(device)), here(x)), 1e-4)


def losses(device: torch.device) -> Iterator[Check]:
    """Values and gradients of one batch of random descriptors."""
    rng = torch.Generator().manual_seed(2)
    for name, (loss, sampler) in LOSSES.items():
        calls = {"sxk": 1, "pairs": 2, "random_triplets": 3}[sampler.kind]
        size = sampler.groups * sampler.views if sampler.kind == "sxk" else sampler.batch
        drawn = torch.randn(calls, size, 128, generator=rng)
        values, slopes = [], []
        for where in (CPU, device):
            x = drawn.detach().clone().to(where).requires_grad_()
            result = build_loss(loss, sampler)(x)
            result.backward()
            values.append(result.detach())
            slopes.append(x.grad)
        yield Check(f"{name}: loss, relative", apart(values[1], values[0]), 1e-5)
        yield Check(f"{name}: gradient, relative", apart(slopes[1], slopes[0]), 1e-4)


def training(device: torch.device, steps: int) -> Iterator[Check]:
    """Losses of the first steps in float32 without dropout: rounding grows from step to step."""
    here, there = (
        Run(where, precision="float32", descriptor=L2Net(width=0.25, dropout=0)).steps(steps)
        for where in (CPU, device)
    )
    yield Check(f"L2-Net: losses of {steps} steps, relative", apart(there, here), 1e-2)
    here, there = (denoiser_losses(where, steps) for where in (CPU, device))
    yield Check(f"shallow U-Net: losses of {steps} steps, relative", apart(there, here), 1e-2)


def repeats(device: torch.device, steps: int) -> Iterator[Check]:
    """Deterministic mode, twice; the largest difference of a loss or a weight."""
    runs = [Run(device, deterministic=True) for _ in range(2)]
    first, second = (run.steps(steps) for run in runs)
    yield Check("deterministic: losses of two runs, largest difference", most(first, second), 0)
    yield Check("deterministic: weights of two runs, largest difference", runs[0].most(runs[1]), 0)


def graphs(device: torch.device, steps: int) -> Iterator[Check]:
    """Steps replayed as one launch against the same steps kernel by kernel, to the last bit."""
    for name, settings in GRAPHED.items():
        eager, graphed = (
            Run(device, deterministic=True, graphed=flag, **settings) for flag in (False, True)
        )
        found = most(eager.steps(steps), graphed.steps(steps))
        yield Check(f"graph, {name}: losses, largest difference", found, 0)
        yield Check(f"graph, {name}: weights, largest difference", eager.most(graphed), 0)
    eager, graphed = (denoiser_losses(device, steps, graphed=flag) for flag in (False, True))
    yield Check("graph, shallow U-Net: losses, relative", apart(graphed, eager), 1e-3)


def mapped(device: torch.device, steps: int, *, count: int = 3, batch: int = 64) -> Iterator[Check]:
    """Trials as one program, each with its own seed, rate and margin, against each alone."""
    points = 128
    compute = Compute(device=device, precision="float32", graphed=False)
    together = trials.Batched(compute, count=count, batch=batch, points=points, dropout=0)
    found = torch.stack([together().cpu() for _ in range(steps)], dim=1)
    gather = device_resident(pixels(points), device)
    settings = zip(trials.rates(count), trials.margins(count), strict=True)
    for seed, (lr, margin) in enumerate(settings):
        config = trial(width=0.25, batch=batch, seed=seed, dropout=0, lr=lr, margin=margin)
        alone = Stepping(config, points, gather, compute)
        losses = torch.stack([alone() for _ in range(steps)])
        name = f"one program, trial {seed}: losses of {steps} steps, relative"
        yield Check(name, apart(found[seed], losses), 1e-2)


def checkpoints(device: torch.device) -> Iterator[Check]:
    """Saved on one device, continued on the other."""
    for start, end in ((CPU, device), (device, CPU)):
        name = f"checkpoint {start.type} → {end.type}"
        settings = {"precision": "float32", "descriptor": L2Net(width=0.25, dropout=0)}
        stays, moves = Run(start, **settings), Run(end, **settings)
        stays.steps(5)
        moves.learner.restore(copy.deepcopy(to_cpu(stays.learner.state())))
        moves.done = stays.done
        yield Check(f"{name}: weights, largest difference", stays.most(moves), 0)
        with full_precision():
            found = apart(moves.steps(5), stays.steps(5))
        yield Check(f"{name}: losses of the next 5 steps, relative", found, 1e-2)


class Run:
    """A small training on random patches."""

    def __init__(
        self,
        device: torch.device,
        *,
        precision: Any = "auto",
        graphed: Any = "auto",
        deterministic: bool = False,
        **settings: Any,
    ) -> None:
        given = {
            "descriptor": L2Net(width=0.25),
            "loss": BatchHard(margin=SoftMargin()),
            "sampler": PKSampler(groups=16, views=4),
            "optimizer": Adam(lr=RATE),
            "patches": 10**6,
            **settings,
        }
        compute = Compute(
            device=device, precision=precision, graphed=graphed, deterministic=deterministic
        )
        pixels = gray(0, 128)
        self.learner = DescriptorTrainer(
            TrialConfig.model_validate(given),
            np.arange(128) // 16,
            constant_input(device_resident(pixels.reshape(-1, 32, 32), device)),
            compute,
        )
        self.done = 0

    def steps(self, count: int) -> Tensor:
        """The losses of the next steps."""
        losses = []
        for _ in range(count):
            losses.append(self.learner.step(Progress(seen=64 * self.done, step=self.done))[0])
            self.done += 1
        return torch.stack(losses).cpu()

    def most(self, other: "Run") -> float:
        """The largest difference of a weight or statistic."""
        pairs = zip(self._state(), other._state(), strict=True)
        return max(most(one, two) for one, two in pairs)

    def _state(self) -> list[Tensor]:
        return [value.cpu() for value in self.learner.network.state_dict().values()]


def denoiser_losses(device: torch.device, steps: int, *, graphed: bool = True) -> Tensor:
    """Losses of the first steps."""
    clean = gray(3, 64).reshape(-1, 32, 32)
    noise = np.random.default_rng(4).normal(0, 20, clean.shape)
    noisy = np.clip(clean + noise, 0, 255).astype(np.uint8)
    network = Compute(device=device).to_device(build_denoiser(ShallowUNet(), seed=0))
    feeds = (device_resident(a, device) for a in (noisy, clean))
    task = DenoiserTask(
        DenoiserTraining(batch=64, patches=10**6), network, *feeds, num_rows=len(clean)
    )
    if not graphed:
        task.launcher.runner = None
    return torch.stack([task.step(Progress(step=n))[0].cpu() for n in range(steps)])


def gray(seed: int, points: int) -> np.ndarray:
    """Random patches (points, 16, 32, 32): views differ from their point by noise."""
    rng = np.random.default_rng(seed)
    point = rng.integers(256, size=(points, 1, 32, 32))
    return np.clip(point + rng.integers(-40, 41, (points, 16, 32, 32)), 0, 255).astype(np.uint8)


def apart(found: Tensor | None, expected: Tensor | None) -> float:
    """Length of the difference over the length of what is expected."""
    assert found is not None
    assert expected is not None
    one, other = found.cpu().double(), expected.cpu().double()
    return float((one - other).norm() / other.norm())


def most(one: Tensor, other: Tensor) -> float:
    """The largest difference."""
    return float((one.double() - other.double()).abs().max())
