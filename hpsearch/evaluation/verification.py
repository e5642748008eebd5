"""Verification: do two patches show the same point?"""

import numpy as np
import torch

from hpsearch.evaluation.average_precision import area_from_counts
from hpsearch.evaluation.descriptors import Bank
from hpsearch.evaluation.distances import ROWS, Norm
from hpsearch.evaluation.scores import KINDS, VerificationScores
from hpsearch.evaluation.tasks import Tasks
from hpsearch.evaluation.views import LEVELS, VIEW_NAMES, view_of
from hpsearch.shapes import Float, Int

IMBALANCE = 5
"""The imbalanced list holds all negatives and the first fifth of the positives."""

BINS = 256
"""Bins of equally many positives that the bootstrap resamples."""


def verify(bank: Bank, tasks: Tasks, *, norm: Norm) -> VerificationScores:
    """Balanced AUC and imbalanced AP by level and kind of negative.

    The list holds the negatives first, so a tie counts against the descriptor. Distances are
    float32.
    """
    found = [_verify_level(bank, tasks, level=level, norm=norm) for level in range(len(LEVELS))]
    auc, ap, sequence_ap, histogram = (np.stack(part) for part in zip(*found, strict=True))
    return VerificationScores(
        balanced_auc=auc, imbalanced_ap=ap, sequence_ap=sequence_ap, histogram=histogram
    )


def _verify_level(
    bank: Bank, tasks: Tasks, *, level: int, norm: Norm
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    few = len(tasks.positives) // IMBALANCE
    some = _by_sequence(bank, tasks.positives[:few], level=level, norm=norm)
    rest = _by_sequence(bank, tasks.positives[few:], level=level, norm=norm)
    positives = np.sort(np.concatenate(some))
    everything = np.sort(np.concatenate([positives, *rest]))
    edges = positives[(np.arange(1, BINS + 1) * few + BINS - 1) // BINS - 1]
    histograms = [_histogram(some, edges)]
    auc, ap, sequence_ap = [], [], []
    for kind in KINDS:
        own = _by_sequence(bank, getattr(tasks, kind), level=level, norm=norm)
        negatives = np.sort(np.concatenate(own))
        auc.append(_auc(everything, negatives))
        ap.append(_ap(positives, negatives))
        sequence_ap.append([_ap(p, n) for p, n in zip(some, own, strict=True)])
        histograms.append(_histogram(own, edges))
    return np.array(auc), np.array(ap), np.array(sequence_ap), np.stack(histograms)


def _by_sequence(
    bank: Bank, pairs: Int[np.ndarray, "n 6"], *, level: int, norm: Norm
) -> list[Float[np.ndarray, " m"]]:
    """Sorted distances of the pairs whose first patch lies in each sequence.

    Pairs of one kind may change places, because only their number ahead of a positive counts; taken
    sequence by sequence they stay in the cache.
    """
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    starts = bank.starts
    first, second = (
        (starts[pairs[:, i]] + pairs[:, i + 2]) * len(VIEW_NAMES)
        + view_of(pairs[:, i + 1], level=level)
        for i in (0, 3)
    )
    distances = _distances(bank, first, second, norm=norm)
    ends = np.searchsorted(pairs[:, 0], np.arange(1, len(bank.counts)))
    return [np.sort(part) for part in np.split(distances, ends)]


def _distances(
    bank: Bank, first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"], *, norm: Norm
) -> Float[np.ndarray, " n"]:
    """Distances in float32, rounded where SciPy rounds: the difference, then the norm."""
    rows = bank.table.flatten(0, 1)
    left, right = (torch.from_numpy(index).to(rows.device) for index in (first, second))
    result = np.empty(len(first), np.float32)
    for start in range(0, len(first), ROWS):
        step = slice(start, start + ROWS)
        difference = rows[left[step]].sub_(rows[right[step]])
        if norm == "l2":
            result[step] = difference.double().square_().sum(dim=1).sqrt_().float().cpu().numpy()
        else:  # NumPy's own order of adding float32, which SciPy uses here
            result[step] = difference.abs_().cpu().numpy().sum(axis=1)
    return result


def _ap(positives: Float[np.ndarray, " p"], negatives: Float[np.ndarray, " n"]) -> float:
    """AP of sorted distances with the negatives listed first; NaN if either are missing."""
    if not len(positives) or not len(negatives):
        return float("nan")
    ahead = np.searchsorted(negatives, positives, side="right")
    return float(area_from_counts(ahead, n_positive=len(positives)))


def _auc(positives: Float[np.ndarray, " p"], negatives: Float[np.ndarray, " n"]) -> float:
    """Share of (positive, negative) pairs with the positive strictly closer."""
    closer = np.searchsorted(positives, negatives, side="left")
    return float(closer.sum() / (len(positives) * len(negatives)))


def _histogram(
    own: list[Float[np.ndarray, " m"]], edges: Float[np.ndarray, " b"]
) -> Int[np.ndarray, "s b"]:
    """Count of sorted distances up to each edge and above the one before, by sequence."""
    reached = np.stack([np.searchsorted(part, edges, side="right") for part in own])
    return np.diff(reached, axis=1, prepend=0)
