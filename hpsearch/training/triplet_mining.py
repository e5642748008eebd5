"""Offline hard mining: triplets that the descriptor finds hard, kept until the next mining."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpsearch.config import MinedTriplets, RandomTriplets
from hpsearch.data.samplers import Batch, sample
from hpsearch.losses.distances import paired_distance
from hpsearch.patch_views import VIEWS
from hpsearch.rng import rng_for
from hpsearch.shapes import Float, Int

CANDIDATE_CHUNK = 1024
"""Triplets that are described at a time; a mining holds 28 bytes for each candidate, no more."""

DescribeRows = Callable[[Int[np.ndarray, " n"]], Float[Tensor, "n d"]]
"""Training rows in, their descriptors in evaluation mode out."""


@dataclass
class Miner:
    """The mined triplets; they are part of the checkpoint."""

    settings: MinedTriplets
    sequence_of: Int[np.ndarray, " points"]
    seed: int
    rows: Int[Tensor, "3 kept"] | None = None
    """Training rows of anchors, positives, negatives, the hardest triplet first."""
    mined_at: int = 0
    """Patches seen at the latest mining."""

    def due(self, *, seen: int, budget: int) -> bool:
        """Whether to mine before the next batch."""
        if self.rows is None:
            return seen >= self.settings.start * budget
        every = self.settings.every
        return every is not None and seen - self.mined_at >= every

    def mine(self, describe: DescribeRows, *, seen: int) -> None:
        """Draw candidates, describe them a chunk at a time, and keep the hardest.

        Source: R3, offline hard mining; hardness is d(a,p) − d(a,n), Euclidean.
        """
        parts, hardness = [], []
        for number, start in enumerate(range(0, self.settings.candidates, CANDIDATE_CHUNK)):
            size = min(CANDIDATE_CHUNK, self.settings.candidates - start)
            rng = rng_for(self.seed, f"candidates at {seen}", number)
            rows = sample(RandomTriplets(batch=size), self.sequence_of, rng).rows
            anchor, positive, negative = (describe(call) for call in rows)
            near, far = (paired_distance(anchor, x, "euclidean") for x in (positive, negative))
            parts.append(rows)
            hardness.append((near - far).float().cpu().numpy())
        kept = max(1, round(self.settings.keep * self.settings.candidates))
        order = np.argsort(-np.concatenate(hardness), kind="stable")[:kept]
        self.rows = torch.from_numpy(np.concatenate(parts, axis=1)[:, order])
        self.mined_at = seen

    def batch(self, rng: np.random.Generator) -> Batch:
        """Mined triplets, drawn with replacement."""
        assert self.rows is not None, "mining comes first"
        kept = self.rows.numpy()
        rows = kept[:, rng.integers(kept.shape[1], size=self.settings.batch)]
        return Batch(rows, rows // VIEWS)

    def state(self) -> dict[str, Any]:
        """Everything but the settings."""
        return {"rows": self.rows, "mined_at": self.mined_at}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        rows = state["rows"]
        self.rows, self.mined_at = None if rows is None else rows.cpu(), state["mined_at"]
