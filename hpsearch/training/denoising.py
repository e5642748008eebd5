"""Denoisers as a task, and as artifacts that trials share."""

import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.config import VIEWS, DenoiserTrial
from hpsearch.data.samplers import stream
from hpsearch.data.store import Patches
from hpsearch.losses import mean_absolute_error, pooled_psnr
from hpsearch.models import build_denoiser, denoise
from hpsearch.shapes import UInt8
from hpsearch.training.artifacts import Artifacts, artifact_key
from hpsearch.training.devices import Compute, Gather, resident
from hpsearch.training.loop import Verdict, fit
from hpsearch.training.optimisers import build_optimiser
from hpsearch.training.rows import Rows

CODE = 2
"""Raise when the same settings would give other weights, so that old artifacts are left alone."""


@dataclass
class DenoiserTask:
    """Train a network to give clean patches for noisy ones; mean absolute error in grey levels."""

    config: DenoiserTrial
    network: nn.Module
    noisy: Gather
    clean: Gather
    rows: int
    """Patches to draw from."""

    def __post_init__(self) -> None:
        self.optimiser = build_optimiser(self.config.optimiser, self.network.parameters())

    def step(self, number: int) -> tuple[Tensor, int]:
        """One batch of patches, drawn with replacement."""
        rng = stream(self.config.seed, "denoiser batch", number)
        rows = rng.integers(self.rows, size=self.config.batch)
        self.network.train()
        loss = mean_absolute_error(self.network(self.noisy(rows)), self.clean(rows))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss, self.config.batch

    def check(self, loss: float) -> Verdict | None:
        """Denoisers do not collapse; a loss that is not finite is caught by ``fit``."""
        return None

    def evaluate(self) -> dict[str, float]:
        """Nothing beyond the loss; what a denoiser is worth shows in ``restoration_metrics``."""
        return {}

    def worst(self) -> dict[str, float]:
        """Nothing."""
        return {}


def trained_denoiser(
    config: DenoiserTrial, train: Patches, artifacts: Artifacts, device: torch.device
) -> nn.Module:
    """The denoiser that follows from its settings and the patches; found, or made and published.

    Raises:
        ValueError: if its training diverges.
    """
    key = artifact_key(kind="denoiser", **_depends(config, train))
    network = Compute(device=device).place(build_denoiser(config.network, seed=config.seed))
    stored = artifacts.get(key)
    if stored is not None:
        state = torch.load(io.BytesIO(stored), map_location=device, weights_only=True)
        network.load_state_dict(state)
        return network.eval()
    task = DenoiserTask(
        config,
        network,
        noisy=resident(Rows(train, noisy=True), device),
        clean=resident(Rows(train, noisy=False), device),
        rows=VIEWS * len(train),
    )
    torch.manual_seed(config.seed)
    for report in fit(task, patches=config.patches, report_every=config.patches):
        if report.status != "completed":
            raise ValueError(f"the denoiser {report.status}: {report.reason}")
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in network.state_dict().items()}, buffer)
    artifacts.publish(key, buffer.getvalue())
    return network.eval()


def denoised_patches(
    config: DenoiserTrial,
    train: Patches,
    network: nn.Module,
    artifacts: Artifacts,
    device: torch.device,
) -> UInt8[np.ndarray, "rows 32 32"]:
    """Every training patch, denoised once for all trials that share the denoiser."""
    key = artifact_key(kind="denoised patches", **_depends(config, train))
    stored = artifacts.get(key)
    if stored is None:
        noisy = train.all(noisy=True).reshape(-1, 32, 32)
        artifacts.publish(key, denoise(network, noisy, device=device).tobytes())
        stored = artifacts.get(key)
        assert stored is not None, "it has just been published"
    return np.frombuffer(stored, np.uint8).reshape(-1, 32, 32)


def restoration_metrics(
    seen: UInt8[np.ndarray, "rows 32 32"], clean: UInt8[np.ndarray, "rows 32 32"]
) -> dict[str, float]:
    """MAE (grey levels) and pooled PSNR (dB) of what a descriptor sees, overall and by noise level.

    Rows are point-major; level easy is ``ref`` and e1…e5, hard h1…h5, tough t1…t5.
    """
    x, y = (torch.from_numpy(a).view(-1, VIEWS, 1, 32, 32).float() for a in (seen, clean))
    levels = {
        "": slice(0, 16),
        "/easy": slice(0, 6),
        "/hard": slice(6, 11),
        "/tough": slice(11, 16),
    }
    out = {}
    for suffix, views in levels.items():
        out[f"val/MAE{suffix}"] = float(mean_absolute_error(x[:, views], y[:, views]))
        out[f"val/PSNR{suffix}"] = float(pooled_psnr(x[:, views], y[:, views]))
    return {name: value for name, value in out.items() if np.isfinite(value)}


def _depends(config: DenoiserTrial, train: Patches) -> dict:
    return {
        "config": config.model_dump(mode="json"),
        "patches": train.store.fingerprint,
        "sequences": list(train.names),
        "code": CODE,
    }
