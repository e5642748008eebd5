"""Areas under precision-recall and ROC curves, as in the official HPatches evaluation.

Both curves run over a list sorted by distance with a *stable* sort: ties keep the list's order, and
each rank is a separate point (tied entries are not merged). scikit-learn's
``average_precision_score`` is a different number.

Source: Balntas et al., HPatches, CVPR 2017; hpatches-benchmark, ``python/utils/hpatch.py``.
"""

import numpy as np

from hpsearch.errors import UserError
from hpsearch.shapes import Bool, Float, Num

MIN_DENOMINATOR = 1e-10
"""Lower bound of true positives and retrieved counts before division, as in the official code."""


def average_precision(
    distance: Num[np.ndarray, " n"],
    is_match: Bool[np.ndarray, " n"],
    *,
    n_positive: int | None = None,
) -> float:
    """Average precision: trapezoid area under precision-recall from (0, 1), in [0, 1].

    Args:
        distance: distances of the list; smaller means more likely a match; ties keep list order.
        is_match: True for matches, in the order of ``distance``.
        n_positive: all true matches, found or not (default: those in the list). The area stops at
            the recall of the list.

    Raises:
        UserError: if ``n_positive`` is zero or less than the listed matches, or a distance is NaN.

    Example:
        >>> round(average_precision(np.array([0.1, 0.2, 0.3]), np.array([True, False, True])), 4)
        0.7917
    """
    matches = sorted_labels(distance, is_match)
    found = np.flatnonzero(matches)
    total = len(found) if n_positive is None else n_positive
    if total < max(len(found), 1):
        raise UserError(f"n_positive is {total}, but the list has {len(found)} matches")
    return float(area_from_counts(found - np.arange(len(found)), n_positive=total))


def roc_auc(distance: Num[np.ndarray, " n"], is_match: Bool[np.ndarray, " n"]) -> float:
    """Trapezoid area under ROC over the stably sorted list, in [0, 1].

    Equal to the share of (match, non-match) pairs with the match listed first; in case of ties the
    stable sort keeps list order, and ties do not count half.

    Raises:
        UserError: if either class is empty or a distance is NaN.
    """
    matches = sorted_labels(distance, is_match)
    positives = int(matches.sum())
    negatives = len(matches) - positives
    if not positives or not negatives:
        raise UserError("ROC needs at least one match and one non-match")
    ahead = np.flatnonzero(matches) - np.arange(positives)
    return 1.0 - float(ahead.sum()) / (positives * negatives)


def area_from_counts(
    ahead: Num[np.ndarray, "*batch p"], *, n_positive: int
) -> Float[np.ndarray, "*batch"]:
    """Trapezoid AP from the number of non-matches listed ahead of the 1st, 2nd, … p-th match.

    AP = 1/(2P) Σ_r [r / (r + c_r) + (r-1) / (r-1 + c_r)], where the second term is the precision
    one rank before the r-th match: 1 for r = 1 and c_1 = 0.
    """
    rank = np.arange(1, ahead.shape[-1] + 1, dtype=np.float64)
    return _precisions(rank, ahead).sum(axis=-1) / (2 * n_positive)


STEP = 8192
"""Matches per step, so that all arrays of a step stay in a core's cache."""


def area_in_steps(ahead: Num[np.ndarray, " p"]) -> float:
    """Trapezoid AP as in ``area_from_counts`` if all matches are listed; faster for long lists.

    Sums are in another order, so the last digits may differ.
    """
    ranks = np.arange(1, len(ahead) + 1, dtype=np.float64)
    total = sum(
        _precisions(ranks[start : start + STEP], ahead[start : start + STEP]).sum()
        for start in range(0, len(ahead), STEP)
    )
    return float(total / (2 * len(ahead)))


def _precisions(
    rank: Float[np.ndarray, " p"], ahead: Num[np.ndarray, "*batch p"]
) -> Float[np.ndarray, "*batch p"]:
    """Sum of the precision at each match and of that one rank before."""
    here = rank / (rank + ahead)
    listed_before = rank - 1 + ahead
    before = np.maximum(rank - 1, MIN_DENOMINATOR) / np.maximum(listed_before, MIN_DENOMINATOR)
    return here + before


def sorted_labels(
    distance: Num[np.ndarray, " n"], is_match: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Labels in the order of stably sorted distances."""
    if np.isnan(distance).any():
        raise UserError("a distance is NaN: the descriptors contain NaN or infinity")
    return np.asarray(is_match, bool)[np.argsort(distance, kind="stable")]
