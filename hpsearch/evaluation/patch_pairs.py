"""Verification of a data set's own pairs of patches: false positive rate at 95 % recall.

The measure of PhotoTour (Winder and Brown, CVPR 2007; Brown, Hua and Winder, PAMI 2010).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpsearch.errors import UserError
from hpsearch.evaluation.scores import Dispersion
from hpsearch.shapes import Bool, Float, Int

RECALL_PERCENT = 95
CHUNK_PAIRS = 16_384
"""Pairs whose distances are computed at once; 30 MB at 128 dimensions."""


@dataclass(frozen=True, kw_only=True)
class PatchPairScores:
    """Scores of one set of descriptors on pairs of patches; lower is better."""

    false_positive_rate: Mapping[str, float]
    """False positive rate at 95 % recall of each sequence (scene), in [0, 1]."""
    num_pairs: Mapping[str, tuple[int, int]]
    """Number of matching and of other pairs of each sequence."""
    dispersion: Dispersion

    @property
    def fpr95(self) -> float:
        """Mean over sequences of the false positive rate at 95 % recall."""
        return float(np.mean(list(self.false_positive_rate.values())))

    @property
    def collapsed(self) -> bool:
        """True if the descriptors hardly depend on the patch."""
        return self.dispersion.collapsed

    def flat(self) -> dict[str, float]:
        """Headline by metric name."""
        return {"fpr95": self.fpr95}

    def to_dict(self) -> dict[str, Any]:
        """All scores as JSON values."""
        return {
            "headline": {"fpr95": self.fpr95, "collapsed": self.collapsed},
            "false_positive_rate": dict(self.false_positive_rate),
            "num_pairs": {name: list(counts) for name, counts in self.num_pairs.items()},
        }


def false_positive_rate(
    distances: Float[np.ndarray, " n"], matching: Bool[np.ndarray, " n"]
) -> float:
    """Share of the other pairs that the threshold accepts which accepts 95 % of the matches.

    The threshold is the smallest distance at or below which at least 95 % of the matching pairs
    lie; other pairs at the same distance count as accepted, so equal descriptors give 1.

    Args:
        distances: distance of the descriptors of each pair.
        matching: True for pairs of one point.

    Raises:
        UserError: if there are no matching or no other pairs.

    Example:
        >>> false_positive_rate(np.array([0.1, 0.2, 0.3, 0.15, 0.9]), np.array([1, 1, 1, 0, 0]) > 0)
        0.5
    """
    matches, others = np.sort(distances[matching]), distances[~matching]
    if not len(matches) or not len(others):
        raise UserError(
            "the false positive rate needs matching and other pairs, but there are "
            f"{len(matches)} and {len(others)}; give a data set with both"
        )
    needed = -(-RECALL_PERCENT * len(matches) // 100)
    return float((others <= matches[needed - 1]).mean())


def score_patch_pairs(
    descriptors: Float[np.ndarray, "rows d"],
    pairs: Int[np.ndarray, "n 2"],
    matching: Bool[np.ndarray, " n"],
    sequence_of: Int[np.ndarray, " n"],
    names: tuple[str, ...],
) -> PatchPairScores:
    """Scores of descriptors on pairs, sequence by sequence.

    Args:
        descriptors: one for each patch; distances are Euclidean, in float64.
        pairs: rows of the descriptors.
        matching: True for pairs of one point.
        sequence_of: sequence of each pair, as an index into ``names``.
        names: names of the sequences; those without pairs are left out.

    Raises:
        UserError: if a sequence has only matching or only other pairs.
    """
    distances = pair_distances(descriptors, pairs)
    rates, counts = dict[str, float](), dict[str, tuple[int, int]]()
    for index, name in enumerate(names):
        own = sequence_of == index
        if own.any():
            rates[name] = false_positive_rate(distances[own], matching[own])
            counts[name] = int(matching[own].sum()), int((~matching[own]).sum())
    return PatchPairScores(
        false_positive_rate=rates,
        num_pairs=counts,
        dispersion=_dispersion(descriptors, distances, matching),
    )


def pair_distances(
    descriptors: Float[np.ndarray, "rows d"], pairs: Int[np.ndarray, "n 2"]
) -> Float[np.ndarray, " n"]:
    """Euclidean distance of the descriptors of each pair, from their differences in float64."""
    distances = np.empty(len(pairs))
    for start in range(0, len(pairs), CHUNK_PAIRS):
        first, second = pairs[start : start + CHUNK_PAIRS].T
        difference = descriptors[first].astype(np.float64) - descriptors[second]
        distances[start : start + CHUNK_PAIRS] = np.sqrt((difference**2).sum(axis=1))
    return distances


def _dispersion(
    descriptors: Float[np.ndarray, "rows d"],
    distances: Float[np.ndarray, " n"],
    matching: Bool[np.ndarray, " n"],
) -> Dispersion:
    """Spread as ``protocol.point_dispersion`` defines it, over the pairs."""
    some = descriptors[:: max(len(descriptors) // 8192, 1)].astype(np.float64)
    norm = np.linalg.norm(some, axis=1)
    unit = some / np.maximum(norm, np.finfo(float).tiny)[:, None]
    apart, near = distances[~matching].mean(), distances[matching].mean()
    mean_norm = norm.mean()
    return Dispersion(
        relative=float(apart / mean_norm) if mean_norm > 0 else 0.0,
        resultant=float(np.linalg.norm(unit.mean(axis=0)) + (norm == 0).mean()),
        contrast=float(apart / near) if near > 0 else 1e9 if apart > 0 else 1.0,
    )
