"""Batch sampling: index arrays from a named random stream; no patch is read.

Sampling is stateless, so that a resumed run needs no sampler state. Source of P×K batches: Hermans
et al. 2017, arXiv:1703.07737.
"""

from typing import NamedTuple

import numpy as np

from hpsearch.config import Pairs, PKSampler, RandomTriplets, Sampler
from hpsearch.errors import UserError
from hpsearch.patch_views import VIEW_NAMES, VIEWS
from hpsearch.rng import rng_for
from hpsearch.shapes import Int

__all__ = ["Batch", "rng_for", "sample"]

FIRST_TOUGH_VIEW = VIEW_NAMES.index("t1")


class Batch(NamedTuple):
    """Rows of one batch; the network is called once for each of the ``calls``.

    Triplets have three calls (anchors, positives, negatives), so that batch normalization uses
    separate statistics, as in the coursework's baseline. Pairs have two calls (anchors,
    positives), P×K batches one, group by group.
    """

    rows: Int[np.ndarray, "calls n"]
    """Local rows: 16·point + view."""
    labels: Int[np.ndarray, "calls n"]
    """Local points of the rows."""


def sample(
    sampler: Sampler,
    sequence_of: Int[np.ndarray, " points"],
    rng: np.random.Generator,
    *,
    progress: float | None = None,
) -> Batch:
    """Draw one batch.

    Args:
        sampler: setting of the sampler.
        sequence_of: sequence of each point, ascending (``Patches.sequence_of``).
        rng: source of randomness.
        progress: spent share of the budget, in [0, 1); None for samplers that do not change.

    Raises:
        UserError: if there are fewer points or sequences than the sampler needs.

    Example:
        >>> batch = sample(PKSampler(groups=4, views=2), np.arange(10), rng_for(0, "batch", 0))
        >>> batch.rows.shape, len(set(batch.labels[0].tolist()))
        ((1, 8), 4)
    """
    match sampler:
        case RandomTriplets():
            return _sample_triplets(sampler, sequence_of, rng, progress)
        case Pairs(batch=n):
            return _sample_pairs(n, len(sequence_of), rng)
        case PKSampler(groups=s, views=k):
            return _sample_groups(s, k, len(sequence_of), rng)


def _sample_triplets(
    sampler: RandomTriplets,
    sequence_of: Int[np.ndarray, " points"],
    rng: np.random.Generator,
    progress: float | None,
) -> Batch:
    n, points = sampler.batch, len(sequence_of)
    if points < 2:
        raise UserError(
            f"triplets need at least 2 points, but the patches have {points}; add sequences"
        )
    tough, far = _difficulty(sampler, progress)
    anchors = rng.integers(points, size=n)
    negatives = (
        _from_other_sequences(anchors, sequence_of, rng)
        if far
        else _random_others(anchors, points, rng)
    )
    positive_views = rng.integers(FIRST_TOUGH_VIEW if tough else 0, VIEWS, size=n)
    labels = np.stack([anchors, anchors, negatives])
    views = np.stack(
        [_random_others(positive_views, VIEWS, rng), positive_views, rng.integers(VIEWS, size=n)]
    )
    return Batch(VIEWS * labels + views, labels)


def _difficulty(sampler: RandomTriplets, progress: float | None) -> tuple[bool, bool]:
    """Pair (tough positives, far negatives) at this share of the budget."""
    if progress is None:
        assert {sampler.tough_until, sampler.far_from} <= {0.0, 1.0}, "a curriculum needs progress"
        progress = 0.0
    return progress < sampler.tough_until, sampler.far_from <= progress < 1


def _random_others(
    chosen: Int[np.ndarray, " n"], count: int, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Uniform draw from 0..count-1 without the chosen number, for each."""
    return (chosen + rng.integers(1, count, size=len(chosen))) % count


def _from_other_sequences(
    anchors: Int[np.ndarray, " n"],
    sequence_of: Int[np.ndarray, " points"],
    rng: np.random.Generator,
) -> Int[np.ndarray, " n"]:
    """Uniform draw from the points of other sequences, for each anchor."""
    assert (np.diff(sequence_of) >= 0).all(), "the points of a sequence are adjacent"
    counts = np.bincount(sequence_of)
    if len(counts[counts > 0]) < 2:
        raise UserError("far negatives need at least 2 sequences; add sequences")
    own = sequence_of[anchors]
    size, start = counts[own], (np.cumsum(counts) - counts)[own]
    drawn = rng.integers(len(sequence_of) - size)
    return drawn + size * (drawn >= start)  # steps over the anchor's own sequence


def _sample_pairs(n: int, points: int, rng: np.random.Generator) -> Batch:
    labels = _sample_distinct(n, points, rng)
    anchor_views = rng.integers(VIEWS, size=n)
    views = np.stack([anchor_views, _random_others(anchor_views, VIEWS, rng)])
    return Batch(VIEWS * labels + views, np.stack([labels, labels]))


def _sample_groups(s: int, k: int, points: int, rng: np.random.Generator) -> Batch:
    views = rng.random((s, VIEWS)).argsort(axis=1)[:, :k]
    labels = np.repeat(_sample_distinct(s, points, rng), k)
    return Batch((VIEWS * labels + views.ravel())[None], labels[None])


def _sample_distinct(n: int, points: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Draw points without replacement: a repeated point would be its own false negative."""
    if n > points:
        raise UserError(
            f"a batch needs {n} distinct points, but the patches have {points}; "
            "lower the number of groups or pairs per batch, or add sequences"
        )
    return rng.choice(points, size=n, replace=False)
