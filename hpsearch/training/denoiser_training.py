"""Training of denoisers, and shared denoisers and denoised patches as artifacts."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.config import DenoiserTraining
from hpsearch.config.base import dump_former_names
from hpsearch.data.patch_store import Patches
from hpsearch.losses import (
    build_restoration,
    mean_absolute_error,
    mean_patch_psnr,
    mean_ssim,
    pooled_psnr,
)
from hpsearch.models import build_denoiser, denoise
from hpsearch.patch_views import VIEWS
from hpsearch.rng import rng_for
from hpsearch.shapes import UInt8
from hpsearch.training.artifact_cache import ArtifactCache, DependencyFailedError, artifact_key
from hpsearch.training.devices import Compute, GatherFn, LazyRows, device_resident, mark_step
from hpsearch.training.loop import Progress, StopReason, fit, require_finite_weights
from hpsearch.training.optimization import build_optimizer, lr_factor, set_lr

DENOISER_CACHE_VERSION = 2
"""Version in cache keys; increment it when equal settings would give other weights."""
VIEWS_OF_LEVEL = {"easy": slice(0, 6), "hard": slice(6, 11), "tough": slice(11, 16)}
"""Slice of the views of a point by noise level; easy includes ``ref``."""
RESTORATION_MEASURES = {
    "MAE": mean_absolute_error,
    "PSNR_per_patch": mean_patch_psnr,
    "SSIM": mean_ssim,
}
"""Restoration metrics that are means over patches."""


@dataclass
class DenoiserTask:
    """Training task of a denoiser: map noisy patches to clean ones."""

    config: DenoiserTraining
    network: nn.Module
    noisy: GatherFn
    clean: GatherFn
    num_rows: int
    """Patches of the training sequences."""

    def __post_init__(self) -> None:
        self.loss = build_restoration(self.config.loss)
        compute = Compute(device=next(self.network.parameters()).device)
        self.launcher = compute.launcher()
        self.optimizer = build_optimizer(
            self.config.optimizer, self.network.parameters(), captured=compute.uses_graphs
        )

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        """Train on one batch of patches, drawn with replacement; returns loss and patches used."""
        rng = rng_for(self.config.seed, "denoiser batch", progress.step)
        rows = rng.integers(self.num_rows, size=self.config.batch)
        factor = lr_factor(self.config.schedule, seen=progress.seen, budget=self.config.patches)
        set_lr(self.optimizer, self.config.optimizer.lr * factor)
        if not self.network.training:
            self.network.train()
        (loss_values,) = self.launcher(None, self._train, [torch.from_numpy(rows)])
        mark_step(loss_values.device)
        return loss_values, self.config.batch

    def _train(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (rows,) = inputs
        loss = self.loss(self.network(self.noisy(rows)), self.clean(rows))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return (loss.detach(),)

    def check(self, loss: float) -> StopReason | None:
        """Return None: denoisers do not collapse, and ``fit`` detects what is not finite."""
        return None

    def evaluate(self) -> dict[str, float]:
        """Return no metrics; ``restoration_metrics`` measures a trained denoiser.

        Raises:
            NotFiniteError: if the weights are not finite.
        """
        require_finite_weights(self.network)
        return {}

    def failure_metrics(self) -> dict[str, float]:
        """Return no metrics: a diverged denoiser fails its trial."""
        return {}


def trained_denoiser(
    config: DenoiserTraining, train: Patches, cache: ArtifactCache, device: torch.device
) -> nn.Module:
    """Trained denoiser from the cache; trained and published if it is missing.

    Raises:
        DependencyFailedError: if the training diverges.
    """
    network = Compute(device=device).to_device(build_denoiser(config.network, seed=config.seed))

    def compute() -> bytes:
        _train_denoiser(config, network, train, device)
        buffer = io.BytesIO()
        torch.save({name: value.cpu() for name, value in network.state_dict().items()}, buffer)
        return buffer.getvalue()

    key = artifact_key(kind="denoiser", **_denoiser_dependencies(config, train))
    stored = cache.get_or_compute(key, compute)
    with cache.reading(key):
        state = torch.load(io.BytesIO(stored), map_location=device, weights_only=True)
        network.load_state_dict(state)
    return network.eval()


def _train_denoiser(
    config: DenoiserTraining, network: nn.Module, train: Patches, device: torch.device
) -> None:
    task = DenoiserTask(
        config,
        network,
        noisy=device_resident(LazyRows(train, noisy=True), device),
        clean=device_resident(LazyRows(train, noisy=False), device),
        num_rows=train.num_rows,
    )
    torch.manual_seed(config.seed)
    for report in fit(task, patches=config.patches, report_every=config.patches):
        if report.status != "completed":
            raise DependencyFailedError(f"the denoiser {report.status}: {report.reason}")


def denoised_patches(
    config: DenoiserTraining,
    train: Patches,
    network: nn.Module,
    cache: ArtifactCache,
    device: torch.device,
) -> UInt8[np.ndarray, "rows 32 32"]:
    """Denoised training patches from the cache, shared by all trials with the same denoiser."""
    key = artifact_key(kind="denoised patches", **_denoiser_dependencies(config, train))

    def compute() -> bytes:
        return denoise(network, train.load_all(noisy=True), device=device).tobytes()

    stored = cache.get_or_compute(key, compute)
    with cache.reading(key):
        return np.frombuffer(stored, np.uint8).reshape(train.num_rows, 32, 32)


def restoration_metrics(
    seen: UInt8[np.ndarray, "rows 32 32"], clean: UInt8[np.ndarray, "rows 32 32"]
) -> dict[str, float]:
    """Restoration quality of denoised patches against clean ones, overall and by noise level.

    ``val/MAE`` in gray levels; ``val/PSNR`` in dB of the error pooled over all pixels;
    ``val/PSNR_per_patch``, the mean over patches of each one's own PSNR, which is higher;
    ``val/SSIM``. Infinite values, of equal patches, are omitted. Rows are point-major; level
    easy is ``ref`` and e1…e5, hard h1…h5, tough t1…t5.
    """
    x, y = (torch.from_numpy(a).view(-1, VIEWS, 32, 32) for a in (seen, clean))
    out = {"val/PSNR": float(pooled_psnr(x, y))}
    for level, views in VIEWS_OF_LEVEL.items():
        one, other = x[:, views].flatten(0, 1), y[:, views].flatten(0, 1)
        out[f"val/PSNR/{level}"] = float(pooled_psnr(one, other))
        for name, measure in RESTORATION_MEASURES.items():
            value = float(measure(one, other))
            out[f"val/{name}/{level}"] = value
            # The overall mean is computed from the levels, because SSIM is slow.
            share = (views.stop - views.start) / VIEWS
            out[f"val/{name}"] = out.get(f"val/{name}", 0.0) + share * value
    return {name: value for name, value in out.items() if np.isfinite(value)}


def _denoiser_dependencies(config: DenoiserTraining, train: Patches) -> dict:
    return {
        "config": dump_former_names(config),
        "patches": train.store.fingerprint,
        "sequences": list(train.names),
        "code": DENOISER_CACHE_VERSION,
    }
