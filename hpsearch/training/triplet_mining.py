"""Offline hard mining of triplets, which are used until the next mining."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpsearch.config import MinedTriplets, RandomTriplets
from hpsearch.data.patch_store import point_of
from hpsearch.data.samplers import Batch, sample
from hpsearch.losses.distances import paired_distance
from hpsearch.rng import rng_for
from hpsearch.shapes import Float, Int

CANDIDATE_CHUNK = 1024
"""Triplets described per chunk; a mining needs 28 bytes of memory per candidate."""

DescribeRows = Callable[[Int[np.ndarray, " n"]], Float[Tensor, "n d"]]
"""Function from training rows to their descriptors in evaluation mode."""


@dataclass
class Miner:
    """Miner of hard triplets; its state is part of the checkpoint."""

    settings: MinedTriplets
    sequence_of: Int[np.ndarray, " points"]
    seed: int
    rows: Int[Tensor, "3 kept"] | None = None
    """Training rows (3, n) of anchors, positives, negatives, hardest triplet first."""
    mined_at: int = 0
    """Number of patches seen at the latest mining."""
    first_rows: Int[np.ndarray, " points+1"] | None = None
    """Row of the first patch of each point, as for ``sample``."""

    def due(self, *, seen: int, budget: int) -> bool:
        """Return True if triplets have to be mined before the next batch."""
        if self.rows is None:
            return seen >= self.settings.start * budget
        every = self.settings.every
        return every is not None and seen - self.mined_at >= every

    def mine(self, describe: DescribeRows, *, seen: int) -> None:
        """Draw candidates, describe them in chunks, and keep the hardest.

        Source: R3, offline hard mining; hardness is d(a,p) − d(a,n), Euclidean.
        """
        parts, hardness = [], []
        for number, start in enumerate(range(0, self.settings.candidates, CANDIDATE_CHUNK)):
            size = min(CANDIDATE_CHUNK, self.settings.candidates - start)
            rng = rng_for(self.seed, f"candidates at {seen}", number)
            triplets = RandomTriplets(batch=size)
            rows = sample(triplets, self.sequence_of, rng, first_rows=self.first_rows).rows
            anchor, positive, negative = (describe(call) for call in rows)
            near, far = (paired_distance(anchor, x, "euclidean") for x in (positive, negative))
            parts.append(rows)
            hardness.append((near - far).float().cpu().numpy())
        kept = max(1, round(self.settings.keep * self.settings.candidates))
        order = np.argsort(-np.concatenate(hardness), kind="stable")[:kept]
        self.rows = torch.from_numpy(np.concatenate(parts, axis=1)[:, order])
        self.mined_at = seen

    def batch(self, rng: np.random.Generator) -> Batch:
        """Batch of mined triplets, drawn with replacement."""
        assert self.rows is not None, "requires mining"
        kept = self.rows.numpy()
        rows = kept[:, rng.integers(kept.shape[1], size=self.settings.batch)]
        return Batch(rows, point_of(rows, self.first_rows))

    def state(self) -> dict[str, Any]:
        """State for a checkpoint, without the settings."""
        return {"rows": self.rows, "mined_at": self.mined_at}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        rows = state["rows"]
        self.rows, self.mined_at = None if rows is None else rows.cpu(), state["mined_at"]
