"""Batch sampling: index arrays from a named random stream; no patch is read.

Sampling is stateless, so that a resumed run needs no sampler state. Source of P×K batches: Hermans
et al. 2017, arXiv:1703.07737.
"""

from typing import NamedTuple

import numpy as np

from hpsearch.config import CustomSampler, Pairs, PKSampler, RandomTriplets, Sampler
from hpsearch.config.custom_import import build_object, own_code
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
    """Local rows; 16·point + view, if every point has the views of HPatches."""
    labels: Int[np.ndarray, "calls n"]
    """Local points of the rows."""


def sample(
    sampler: Sampler | CustomSampler,
    sequence_of: Int[np.ndarray, " points"],
    rng: np.random.Generator,
    *,
    progress: float | None = None,
    first_rows: Int[np.ndarray, " points+1"] | None = None,
) -> Batch:
    """Draw one batch.

    Points with fewer views than the sampler needs of a point (K, or two) are left out; in triplets
    they are negatives.

    Args:
        sampler: setting of the sampler.
        sequence_of: sequence of each point, ascending (``Patches.sequence_of``).
        rng: source of randomness.
        progress: spent share of the budget, in [0, 1); None for samplers that do not change.
        first_rows: row of the first patch of each point, and the number of rows; None if every
            point has the 16 views of HPatches.

    Raises:
        UserError: if there are fewer points, views or sequences than the sampler needs, or the
            user's own sampler fails or returns anything but rows.

    Example:
        >>> batch = sample(PKSampler(groups=4, views=2), np.arange(10), rng_for(0, "batch", 0))
        >>> batch.rows.shape, len(set(batch.labels[0].tolist()))
        ((1, 8), 4)
    """
    if isinstance(sampler, CustomSampler):
        first = VIEWS * np.arange(len(sequence_of) + 1) if first_rows is None else first_rows
        return _sample_own(sampler, sequence_of, first, rng, progress or 0.0)
    views = None if first_rows is None else np.diff(first_rows)
    match sampler:
        case RandomTriplets():
            labels, drawn = _sample_triplets(sampler, sequence_of, views, rng, progress)
        case Pairs(batch=n):
            labels, drawn = _sample_pairs(n, len(sequence_of), views, rng)
        case PKSampler(groups=s, views=k):
            labels, drawn = _sample_groups(s, k, len(sequence_of), views, rng)
    first = VIEWS * labels if first_rows is None else first_rows[labels]
    return Batch(first + drawn, labels)


def _sample_own(
    sampler: CustomSampler,
    sequence_of: Int[np.ndarray, " points"],
    first_rows: Int[np.ndarray, " points+1"],
    rng: np.random.Generator,
    progress: float,
) -> Batch:
    """Batch of the user's own sampler, whose rows are checked."""
    with own_code(sampler, "sampler"):
        draw = build_object(sampler, role="sampler")
        rows = np.asarray(draw(sequence_of, first_rows, rng, progress))
    calls = {RandomTriplets: 3, Pairs: 2, PKSampler: 1}[type(sampler.form)]
    shape = (calls, sampler.patches // calls)
    if rows.shape != shape or rows.dtype.kind not in "iu":
        raise UserError(
            f"sampler {sampler.object} must return row numbers, integers of shape {shape} as for "
            f"{type(sampler.form).__name__} of {sampler.patches} patches, not {rows.dtype} of "
            f"shape {rows.shape}; return them so, or set its form",
            code="custom-wrong-shape",
        )
    last = int(first_rows[-1]) - 1
    if rows.min() < 0 or rows.max() > last:
        wrong = int(rows.min()) if rows.min() < 0 else int(rows.max())
        raise UserError(
            f"sampler {sampler.object} returned row {wrong}, but rows are 0 to {last}; the rows of "
            "a point begin at first_rows[point]",
            code="custom-wrong-rows",
        )
    rows = rows.astype(np.int64)
    return Batch(rows, np.searchsorted(first_rows, rows, side="right") - 1)


LabelsAndViews = tuple[Int[np.ndarray, "calls n"], Int[np.ndarray, "calls n"]]
ViewCounts = Int[np.ndarray, " points"] | None
"""Number of views of each point; None for 16 each."""


def _sample_triplets(
    sampler: RandomTriplets,
    sequence_of: Int[np.ndarray, " points"],
    views: ViewCounts,
    rng: np.random.Generator,
    progress: float | None,
) -> LabelsAndViews:
    n, points = sampler.batch, len(sequence_of)
    if points < 2:
        raise UserError(
            f"triplets need at least 2 points, but the patches have {points}; add sequences"
        )
    tough, far = _difficulty(sampler, progress)
    if tough and views is not None:
        raise UserError(
            "tough positives need the views t1…t5 of every point, and these patches have no "
            "levels; set tough_until=0",
            code="no-levels",
        )
    if views is None:
        anchors = rng.integers(points, size=n)
    else:
        several = _with_views(views, 2)
        anchors = several[rng.integers(len(several), size=n)]
    negatives = (
        _from_other_sequences(anchors, sequence_of, rng)
        if far
        else _random_others(anchors, points, rng)
    )
    count = _count_views(views, anchors)
    positive_views = rng.integers(FIRST_TOUGH_VIEW if tough else 0, count, size=n)
    labels = np.stack([anchors, anchors, negatives])
    drawn = np.stack(
        [
            _random_others(positive_views, count, rng),
            positive_views,
            rng.integers(_count_views(views, negatives), size=n),
        ]
    )
    return labels, drawn


def _count_views(views: ViewCounts, points: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"] | int:
    return VIEWS if views is None else views[points]


def _with_views(views: Int[np.ndarray, " points"], least: int) -> Int[np.ndarray, " n"]:
    """Points with at least so many views.

    Raises:
        UserError: if there are none.
    """
    found = np.flatnonzero(views >= least)
    if not len(found):
        raise UserError(
            f"no point of these patches has {least} views, the most is {views.max()}; lower the "
            "number of views per point, or add points with more",
            code="too-few-views",
        )
    return found


def _difficulty(sampler: RandomTriplets, progress: float | None) -> tuple[bool, bool]:
    """Pair (tough positives, far negatives) at this share of the budget."""
    if progress is None:
        assert {sampler.tough_until, sampler.far_from} <= {0.0, 1.0}, "a curriculum needs progress"
        progress = 0.0
    return progress < sampler.tough_until, sampler.far_from <= progress < 1


def _random_others(
    chosen: Int[np.ndarray, " n"], count: Int[np.ndarray, " n"] | int, rng: np.random.Generator
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


def _sample_pairs(
    n: int, points: int, views: ViewCounts, rng: np.random.Generator
) -> LabelsAndViews:
    labels = _sample_distinct(n, points, views, 2, rng)
    count = _count_views(views, labels)
    anchor_views = rng.integers(count, size=n)
    drawn = np.stack([anchor_views, _random_others(anchor_views, count, rng)])
    return np.stack([labels, labels]), drawn


def _sample_groups(
    s: int, k: int, points: int, views: ViewCounts, rng: np.random.Generator
) -> LabelsAndViews:
    if views is None:
        drawn = rng.random((s, VIEWS)).argsort(axis=1)[:, :k]
        groups = _sample_distinct(s, points, views, k, rng)
    else:
        groups = _sample_distinct(s, points, views, k, rng)
        lots = rng.random((s, int(views[groups].max())))
        lots[np.arange(lots.shape[1]) >= views[groups][:, None]] = 2  # after all views there are
        drawn = lots.argsort(axis=1)[:, :k]
    return np.repeat(groups, k)[None], drawn.reshape(1, -1)


def _sample_distinct(
    n: int, points: int, views: ViewCounts, least: int, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Draw points without replacement: a repeated point would be its own false negative."""
    eligible = None if views is None else _with_views(views, least)
    number = points if eligible is None else len(eligible)
    if n > number:
        with_views = "" if views is None else f" with {least} views or more"
        raise UserError(
            f"a batch needs {n} distinct points{with_views}, but the patches have {number}; "
            "lower the number of groups or pairs per batch, or add sequences"
        )
    chosen = rng.choice(number, size=n, replace=False)
    return chosen if eligible is None else eligible[chosen]
