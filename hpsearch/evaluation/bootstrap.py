"""Confidence intervals and paired comparisons by resampling sequences.

Patches of one sequence are dependent, so sequences, not patches, are drawn with replacement. The
contribution of a drawn sequence, weighted by its multiplicity:

- matching: the mean AP of its 15 pairs of views; the headline is the mean over drawn sequences;
- retrieval: the APs of its queries, whole pool (the distractors do not change); the headline is
  the mean over drawn queries, so a sequence is weighted by its number of queries;
- verification: the pairs whose first patch lies in it, positives and negatives; precision and
  recall are recomputed over the pooled, weighted pairs, on 256 bins of distance with equally many
  positives. The bias of binning is measured on the original set and subtracted.

The same samples of sequences are used for all headlines and both sides of a comparison.

Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpsearch.errors import UserError
from hpsearch.evaluation.scores import Scores, VerificationScores
from hpsearch.shapes import Float

HEADLINES = ("verification", "matching", "retrieval", "mAP")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Headline score and the bounds of its percentile interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Difference of a headline score (first minus second), with bounds of its interval."""

    difference: float
    low: float
    high: float
    share_won: float
    """Share of sequences with a higher score; ties count half, missing scores are excluded."""

    @property
    def better(self) -> bool:
        """True if the whole interval is above zero."""
        return self.low > 0


def intervals(
    scores: Scores, *, seed: int = 0, samples: int = 2000, confidence: float = 0.95
) -> dict[str, Interval]:
    """Confidence interval of each of ``HEADLINES``; see the module for the resampling.

    Args:
        scores: scores of one model.
        seed: seed of the resampling.
        samples: number of bootstrap samples.
        confidence: level of the interval, in (0, 1).

    Raises:
        UserError: if there are fewer than two sequences.
    """
    drawn = _resample(scores, _resample_weights(len(scores.names), seed=seed, samples=samples))
    values = _headline_values(scores)
    bounds = _bounds(drawn, confidence=confidence)
    return {name: Interval(value=values[name], low=low, high=high) for name, low, high in bounds}


def headline_scores(scores: Scores, chosen: Sequence[bool]) -> dict[str, float]:
    """Scores of each of ``HEADLINES`` over a subset of the sequences.

    Verification uses the pairs whose first patch lies in the subset, from the binned distances.

    Args:
        scores: scores of one model.
        chosen: True for each sequence of the subset; at least one.
    """
    one = np.asarray(chosen, float)[None]
    if not one.any():
        raise UserError("scores of an empty set of sequences were requested; choose at least one")
    drawn = _resample(scores, one * (one.size / one.sum()))
    return {name: float(values[0]) for name, values in drawn.items()}


def compare(
    scores: Scores, other: Scores, *, seed: int = 0, samples: int = 2000, confidence: float = 0.95
) -> dict[str, Comparison]:
    """Difference ``scores - other`` of each of ``HEADLINES`` over the same bootstrap samples.

    Raises:
        UserError: if the two have different sequences or queries, or there are fewer than two
            sequences.
    """
    if scores.names != other.names or not np.array_equal(
        scores.retrieved.sequence, other.retrieved.sequence
    ):
        raise UserError(
            "the scores have different sequences or queries; use the same tasks for both"
        )
    weights = _resample_weights(len(scores.names), seed=seed, samples=samples)
    ours, theirs = _resample(scores, weights), _resample(other, weights)
    values, others = _headline_values(scores), _headline_values(other)
    won = _share_won(scores, other)
    differences = {name: ours[name] - theirs[name] for name in HEADLINES}
    return {
        name: Comparison(
            difference=values[name] - others[name], low=low, high=high, share_won=won[name]
        )
        for name, low, high in _bounds(differences, confidence=confidence)
    }


def _resample_weights(sequences: int, *, seed: int, samples: int) -> Float[np.ndarray, "r s"]:
    if sequences < 2:
        raise UserError("resampling needs at least two sequences")
    rng = np.random.default_rng([seed, *b"bootstrap"])
    even = np.full(sequences, 1 / sequences)
    return rng.multinomial(sequences, even, size=samples).astype(np.float64)


def _headline_values(scores: Scores) -> dict[str, float]:
    flat = scores.flat()
    return {name: flat[name] for name in HEADLINES}


def _resample(
    scores: Scores, weights: Float[np.ndarray, "r s"]
) -> dict[str, Float[np.ndarray, " r"]]:
    sequences = len(scores.names)
    queries = np.bincount(scores.retrieved.sequence, minlength=sequences)
    found = np.bincount(
        scores.retrieved.sequence,
        weights=scores.retrieved.ap[:, -1].mean(axis=0),
        minlength=sequences,
    )
    matching = weights @ scores.matched.ap.mean(axis=(1, 2)) / sequences
    with np.errstate(invalid="ignore"):  # NaN for a sample without queries
        retrieval = (weights @ found) / (weights @ queries)
    binned = weighted_ap(scores.verified, weights)
    whole = weighted_ap(scores.verified, np.ones((1, sequences)))
    verification = binned + (scores.verification - whole)
    return {
        "verification": verification,
        "matching": matching,
        "retrieval": retrieval,
        "mAP": (verification + matching + retrieval) / 3,
    }


def weighted_ap(
    verified: VerificationScores, weights: Float[np.ndarray, "r s"]
) -> Float[np.ndarray, " r"]:
    """Verification mAP with weighted pairs of each sequence, from the binned distances."""
    total = np.zeros(len(weights))
    for positives, *kinds in verified.histogram:
        hits = (weights @ positives).cumsum(axis=1)
        for negatives in kinds:
            total += _binned_ap(hits, (weights @ negatives).cumsum(axis=1))
    return total / (len(verified.histogram) * (verified.histogram.shape[1] - 1))


def _binned_ap(
    hits: Float[np.ndarray, "r b"], misses: Float[np.ndarray, "r b"]
) -> Float[np.ndarray, " r"]:
    with np.errstate(invalid="ignore"):  # 0/0: empty list, or no positive sampled
        precision = np.where(hits + misses > 0, hits / (hits + misses), 1.0)
        recall = hits / hits[:, -1:]
    precision = np.pad(precision, ((0, 0), (1, 0)), constant_values=1.0)
    recall = np.pad(recall, ((0, 0), (1, 0)))
    return np.trapezoid(precision, recall, axis=1)


def _bounds(
    drawn: dict[str, Float[np.ndarray, " r"]], *, confidence: float
) -> list[tuple[str, float, float]]:
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie in (0, 1), got {confidence}")
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    bounds = {name: np.nanquantile(values, tails) for name, values in drawn.items()}
    return [(name, float(low), float(high)) for name, (low, high) in bounds.items()]


def _share_won(scores: Scores, other: Scores) -> dict[str, float]:
    ours, theirs = scores.by_sequence(), other.by_sequence()
    differences = {name: ours[name] - theirs[name] for name in ours}
    differences["mAP"] = np.mean(list(differences.values()), axis=0)
    shares = {}
    for name, difference in differences.items():
        known = difference[~np.isnan(difference)]
        shares[name] = float(((np.sign(known) + 1) / 2).mean()) if len(known) else float("nan")
    return shares
