"""Where data, model, loss and evaluation meet: training a descriptor."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpsearch.config import TrialConfig
from hpsearch.data.samplers import sample, stream
from hpsearch.losses import build_loss
from hpsearch.models import Pipeline, build_descriptor, describe
from hpsearch.shapes import Int
from hpsearch.training.collapse import CollapseDetector, Dispersion, dispersion
from hpsearch.training.devices import Compute, Gather
from hpsearch.training.loop import Verdict
from hpsearch.training.optimisers import build_optimiser
from hpsearch.training.validation import Scored

WORST = {"val/mAP": 0.0, "val/verification": 0.0, "val/matching": 0.0, "val/retrieval": 0.0}


@dataclass(eq=False)
class DescriptorTask:
    """Train a descriptor on batches of patches and score it on validation sequences."""

    config: TrialConfig
    sequence_of: Int[np.ndarray, " points"]
    """Sequence of each training point."""
    train: Gather
    """Training patches by local row."""
    validation: Scored
    seen_by_descriptor: np.ndarray
    """Validation patches as the descriptor gets them, uint8 (rows, 32, 32)."""
    constant_metrics: dict[str, float]
    """What does not change while the descriptor trains: MAE and PSNR of its input."""
    device: torch.device

    def __post_init__(self) -> None:
        network = build_descriptor(self.config.descriptor, seed=self.config.seed)
        self.network = Compute(device=self.device).place(network)
        self.optimiser = build_optimiser(self.config.optimiser, self.network.parameters())
        self.loss = build_loss(self.config.loss, self.config.sampler)
        self.detector = CollapseDetector(self.config.loss.collapse_value)
        self._latest: tuple[Tensor, Tensor] | None = None

    def step(self, number: int) -> tuple[Tensor, int]:
        """Forward each call of the batch on its own, pay, move the weights."""
        batch = sample(
            self.config.sampler, self.sequence_of, stream(self.config.seed, "batch", number)
        )
        torch.manual_seed(_dropout_seed(self.config.seed, number))
        self.network.train()
        descriptors = torch.stack([self.network(self.train(rows)) for rows in batch.rows])
        loss = self.loss(descriptors)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self._latest = (descriptors.detach().flatten(0, 1), torch.from_numpy(batch.labels.ravel()))
        return loss, batch.rows.size

    def dispersion(self) -> Dispersion:
        """Of the latest training batch."""
        assert self._latest is not None, "a step comes first"
        descriptors, labels = self._latest
        return dispersion(descriptors, labels.to(self.device))

    def check(self, loss: float) -> Verdict | None:
        """Whether the descriptor has collapsed."""
        now = self.dispersion()
        if not self.detector.look(now, loss):
            return None
        return Verdict(
            "collapsed",
            f"loss {loss:.3g} at its collapse value {self.config.loss.collapse_value:.3g}, "
            f"relative dispersion {now.relative:.2g}, resultant length {now.resultant:.3f}, "
            f"d(a,n)/d(a,p) {now.ratio:.2f}",
        )

    def evaluate(self) -> dict[str, float]:
        """Validation mAP by task and noise level, and how the latest batch is dispersed."""
        scores = self.validation.score(
            describe(self._as_pipeline(), self.seen_by_descriptor, device=self.device)
        )
        now = self.dispersion()
        return {
            **{f"val/{name}": value for name, value in scores.flat().items()},
            "val/collapsed": float(scores.collapsed),
            **self.constant_metrics,
            "train/dispersion": now.relative,
            "train/resultant": now.resultant,
        }

    def _as_pipeline(self) -> Pipeline:
        return Pipeline(denoiser=None, descriptor=self.network)

    def worst(self) -> dict[str, float]:
        """What a collapsed or diverged descriptor scores."""
        return WORST

    def state(self) -> dict:
        """Everything that the next step depends on, beside the progress."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "bad_looks": self.detector.bad,
        }

    def restore(self, state: dict) -> None:
        """Go on from ``state``."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.detector.bad = state["bad_looks"]


def _dropout_seed(seed: int, step: int) -> int:
    """One number a step, so that a resumed run drops the same features without saved state."""
    return int(np.random.SeedSequence(seed, spawn_key=(step,)).generate_state(1)[0])
