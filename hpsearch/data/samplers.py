"""Which rows make a batch: index arrays from a named random stream, no patch is touched.

Source of S×K batches: Hermans et al. 2017, arXiv:1703.07737.
"""

from typing import NamedTuple

import numpy as np

from hpsearch.config import VIEWS, RandomTriplets, Sampler, SxK
from hpsearch.data.streams import stream
from hpsearch.errors import UserError
from hpsearch.shapes import Int

__all__ = ["Batch", "sample", "stream"]


class Batch(NamedTuple):
    """Rows of one batch; each of the ``calls`` goes through the network on its own.

    Triplets have three calls (anchors, positives, negatives), so batch normalisation sees each
    alone, as in the coursework's baseline. S×K has one call, group after group.
    """

    rows: Int[np.ndarray, "calls n"]
    """Local rows, 16·point + view."""
    labels: Int[np.ndarray, "calls n"]
    """Local points."""


def sample(
    sampler: Sampler, sequence_of: Int[np.ndarray, " points"], rng: np.random.Generator
) -> Batch:
    """Draw one batch from the points whose sequences are given (``Patches.sequence_of``).

    Raises:
        UserError: if there are fewer points than the sampler needs.

    """
    points = len(sequence_of)
    match sampler:
        case RandomTriplets(batch=n):
            return _triplets(n, points, rng)
        case SxK(groups=s, views=k):
            return _groups(s, k, points, rng)


def _triplets(n: int, points: int, rng: np.random.Generator) -> Batch:
    if points < 2:
        raise UserError(
            f"triplets need at least 2 points, the patches have {points}; add sequences"
        )
    anchors = rng.integers(points, size=n)
    # Adding 1..points-1 modulo the number of points is uniform over all the others.
    negatives = (anchors + rng.integers(1, points, size=n)) % points
    anchor_views = rng.integers(VIEWS, size=n)
    positive_views = (anchor_views + rng.integers(1, VIEWS, size=n)) % VIEWS
    labels = np.stack([anchors, anchors, negatives])
    views = np.stack([anchor_views, positive_views, rng.integers(VIEWS, size=n)])
    return Batch(VIEWS * labels + views, labels)


def _groups(s: int, k: int, points: int, rng: np.random.Generator) -> Batch:
    if s > points:
        raise UserError(
            f"S = {s} groups need as many points, the patches have {points}; "
            "lower S or add sequences"
        )
    # Without replacement: two groups of one point would be each other's false negatives.
    groups = rng.choice(points, size=s, replace=False)
    views = rng.random((s, VIEWS)).argsort(axis=1)[:, :k]
    labels = np.repeat(groups, k)
    return Batch((VIEWS * labels + views.ravel())[None], labels[None])
