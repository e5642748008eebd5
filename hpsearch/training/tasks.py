"""A descriptor in training that is scored on validation sequences."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.config import Constant, TrialConfig
from hpsearch.models import Pipeline, describe
from hpsearch.training.learner import Learner
from hpsearch.training.loop import Progress, Verdict
from hpsearch.training.validation import Scored

WORST = {"val/mAP": 0.0, "val/verification": 0.0, "val/matching": 0.0, "val/retrieval": 0.0}


@dataclass(eq=False)
class DescriptorTask:
    """A learner, and the examination of what it has learnt."""

    learner: Learner
    validation: Scored
    seen_by_descriptor: np.ndarray
    """Validation patches as the descriptor gets them, uint8 (rows, 32, 32)."""
    constant_metrics: dict[str, float]
    """What does not change while the descriptor trains: error and likeness of its input."""

    @property
    def config(self) -> TrialConfig:
        """What is trained, and how."""
        return self.learner.config

    @property
    def network(self) -> nn.Module:
        """The descriptor."""
        return self.learner.network

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.learner.compute.device

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        """One batch."""
        return self.learner.step(progress)

    def check(self, loss: float) -> Verdict | None:
        """Whether the descriptor has collapsed."""
        return self.learner.check(loss)

    def evaluate(self) -> dict[str, float]:
        """Validation mAP by task and noise level, and how training goes."""
        pipeline = Pipeline(denoiser=None, descriptor=self.network)
        scores = self.validation.score(
            describe(pipeline, self.seen_by_descriptor, device=self.device)
        )
        return {
            **{f"val/{name}": value for name, value in scores.flat().items()},
            "val/collapsed": float(scores.collapsed),
            **self.constant_metrics,
            **self.learner.evaluate(),
            **self._rate(),
        }

    def worst(self) -> dict[str, float]:
        """What a collapsed or diverged descriptor scores."""
        return WORST

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, beside the progress."""
        return self.learner.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.learner.restore(state)

    def _rate(self) -> dict[str, float]:
        """Of the latest step, where it changes at all."""
        if self.config.schedule == Constant():
            return {}
        return {"train/lr": float(self.learner.optimiser.param_groups[0]["lr"])}
