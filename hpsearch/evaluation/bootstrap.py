"""Confidence intervals and paired comparisons over sequences, by the jackknife with Student's t.

Patches of one sequence are dependent, so the sequence is the unit. Each headline is computed again
without each sequence; the spread of the n results estimates its standard error:

    se² = (n - 1) / n · Σ (θ₋ᵢ - mean θ₋)²,  interval θ ± t(n - 1) · se.

What a sequence contributes:

- matching: the mean AP of its 15 pairs of views; for this mean, the interval is Student's;
- retrieval: the APs of its queries, whole pool (the distractors do not change); a sequence is
  weighted by its number of queries, and one without queries does not count in n;
- verification: the pairs whose first patch lies in it, positives and negatives; the AP of the
  pooled pairs of the other sequences is not a mean over sequences, but it is smooth in them;
- mAP: all three at once; the degrees of freedom are the fewest of the three.

A comparison does the same with the difference of the two headlines, so that what makes a sequence
hard for both cancels. There is no interval (bounds None) over one sequence, where a headline
depends on a single sequence, and where the spread is zero: so few equal numbers show nothing about
others.

A percentile interval by bootstrap is too narrow over few sequences (coverage 0.79 instead of 0.95
at n = 4): it ignores that the spread is itself estimated, and its spread is too small by
√((n - 1) / n). Student's t is right at every n ≥ 2 for a mean of normal values. Single scores of
skewed values are covered less often: 0.92 at n = 4 and 0.93 at n = 20 for log-normal ones with
σ = 0.5, 0.83 and 0.87 with σ = 1. For the pooled verification, simulated sequences of very
different difficulty gave 0.83 at n = 4 and 0.89 at n = 20. The difference of two equally good
descriptors is symmetric, and there the errors are to the safe side: at most 1 in 40 is found
better, at every n and for both distributions.

Source: Tukey, Ann. Math. Statist. 29 (1958) 614; Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 11.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hpsearch.errors import UserError
from hpsearch.evaluation.scores import Scores
from hpsearch.shapes import Bool, Float

HEADLINES = ("verification", "matching", "retrieval", "mAP")

MIN_STANDARD_ERROR = 1e-9
"""Standard error up to which results without one sequence are equal but for rounding."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Headline score and the bounds of its confidence interval, clipped to [0, 1]."""

    value: float
    low: float | None
    high: float | None
    """Upper bound; None, as ``low``, if there is no interval (see the module)."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Difference of a headline score (first minus second), with the bounds of its interval."""

    difference: float
    low: float | None
    high: float | None
    """Upper bound; None, as ``low``, if there is no interval (see the module)."""
    half_width: float | None = None
    """Half the width of the interval, unclipped: the least difference that is clear; or None."""
    share_won: float
    """Share of sequences with a higher score; ties count half, missing scores are excluded."""

    @property
    def better(self) -> bool:
        """True if there is an interval, and all of it is above zero."""
        return self.low is not None and self.low > 0

    @property
    def worse(self) -> bool:
        """True if there is an interval, and all of it is below zero."""
        return self.high is not None and self.high < 0


def intervals(scores: Scores, *, confidence: float = 0.95) -> dict[str, Interval]:
    """Confidence interval of each of ``HEADLINES``; see the module for the method.

    Args:
        scores: scores of one model.
        confidence: level of the interval, in (0, 1).
    """
    values, found = _headline_values(scores), {}
    halves = _half_widths(scores.without_each(), scores, confidence=confidence)
    for name, value in values.items():
        low, high = _bounds(value, halves[name], least=0.0)
        found[name] = Interval(value=value, low=low, high=high)
    return found


def format_bounds(found: Interval | Comparison, style: str, *, between: str) -> str:
    """Format the bounds of an interval; empty if there is none.

    Args:
        found: the interval.
        style: format of a number, such as ``.3f``.
        between: text between the two.

    Example:
        >>> format_bounds(Interval(value=0.5, low=0.41, high=0.59), ".2f", between=" to ")
        '0.41 to 0.59'
    """
    if found.low is None or found.high is None:
        return ""
    return f"{found.low:{style}}{between}{found.high:{style}}"


def compare(scores: Scores, other: Scores, *, confidence: float = 0.95) -> dict[str, Comparison]:
    """Difference ``scores - other`` of each of ``HEADLINES`` over the same sequences.

    Args:
        scores: scores of one model.
        other: scores of another on the same tasks.
        confidence: level of the interval, in (0, 1).

    Raises:
        UserError: if the two have different sequences or queries.
    """
    if scores.names != other.names or not np.array_equal(
        scores.retrieved.sequence, other.retrieved.sequence
    ):
        raise UserError(
            "the scores have different sequences or queries; use the same tasks for both"
        )
    ours, theirs = scores.without_each(), other.without_each()
    values, others = _headline_values(scores), _headline_values(other)
    without = {name: ours[name] - theirs[name] for name in HEADLINES}
    halves = _half_widths(without, scores, confidence=confidence)
    won, found = _share_won(scores, other), {}
    for name in HEADLINES:
        difference, half = values[name] - others[name], halves[name]
        low, high = _bounds(difference, half, least=-1.0)
        found[name] = Comparison(
            difference=difference, low=low, high=high, half_width=half, share_won=won[name]
        )
    return found


def _contributing(scores: Scores) -> dict[str, Bool[np.ndarray, " s"]]:
    """Sequences that contribute to each headline: with pairs, or with queries."""
    n = len(scores.names)
    return {
        "verification": scores.verified.histogram.sum(axis=(0, 1, 3)) > 0,
        "matching": np.ones(n, bool),
        "retrieval": np.bincount(scores.retrieved.sequence, minlength=n) > 0,
        "mAP": np.ones(n, bool),
    }


def _half_widths(
    without: Mapping[str, Float[np.ndarray, " s"]], scores: Scores, *, confidence: float
) -> dict[str, float | None]:
    """Half the width of each headline's interval; None where there is none.

    Args:
        without: headlines, or their differences, without each sequence.
        scores: scores whose sequences these are.
        confidence: level of the interval, in (0, 1).
    """
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie in (0, 1), got {confidence}")
    masks = _contributing(scores)
    fewest = min(int(mask.sum()) for mask in masks.values())
    halves: dict[str, float | None] = {}
    for name, mask in masks.items():
        values, freedom = without[name][mask], fewest - 1 if name == "mAP" else int(mask.sum()) - 1
        halves[name] = jackknife_half_width(values, freedom, confidence=confidence)
    return halves


def jackknife_half_width(
    without: Float[np.ndarray, " n"], freedom: int, *, confidence: float = 0.95
) -> float | None:
    """Half the width of an interval; None if there is none (see the module).

    Args:
        without: the score without each sequence.
        freedom: degrees of freedom of Student's t.
        confidence: level of the interval, in (0, 1).
    """
    if freedom < 1 or not np.isfinite(without).all():
        return None
    error = math.sqrt((len(without) - 1) * without.var())
    return None if error <= MIN_STANDARD_ERROR else student_quantile(confidence, freedom) * error


def student_quantile(confidence: float, freedom: int) -> float:
    """Bound that the absolute value of Student's t stays within with a probability.

    The probability of a bound is a finite sum of powers of cosines for a whole number of degrees of
    freedom; it is inverted by bisection. (SciPy is not installed on a bare worker.)

    Args:
        confidence: the probability, in (0, 1).
        freedom: degrees of freedom, at least 1.

    Source: Abramowitz & Stegun, Handbook of Mathematical Functions, 1964, 26.7.3 and 26.7.4.

    Example:
        >>> round(student_quantile(0.95, 3), 3)
        3.182
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, freedom) < confidence else (low, angle)
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """Probability that the absolute t is below √freedom times the tangent of an angle."""
    sine, cosine = math.sin(angle), math.cos(angle)
    term = cosine if freedom % 2 else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + freedom % 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total


def _bounds(
    value: float, half: float | None, *, least: float
) -> tuple[float, float] | tuple[None, None]:
    if half is None:
        return None, None
    return max(value - half, least), min(value + half, 1.0)


def _headline_values(scores: Scores) -> dict[str, float]:
    flat = scores.flat()
    return {name: flat[name] for name in HEADLINES}


def _share_won(scores: Scores, other: Scores) -> dict[str, float]:
    ours, theirs = scores.by_sequence(), other.by_sequence()
    differences = {name: ours[name] - theirs[name] for name in ours}
    differences["mAP"] = np.mean(list(differences.values()), axis=0)
    shares = {}
    for name, difference in differences.items():
        known = difference[~np.isnan(difference)]
        shares[name] = float(((np.sign(known) + 1) / 2).mean()) if len(known) else float("nan")
    return shares
