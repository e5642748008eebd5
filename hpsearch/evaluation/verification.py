"""Verification task: classification of pairs of patches as the same point or not."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from hpsearch.evaluation.average_precision import area_from_counts, area_in_steps
from hpsearch.evaluation.descriptor_table import DescriptorTable
from hpsearch.evaluation.distances import Norm, parallel_map
from hpsearch.evaluation.scores import VerificationScores, sequence_groups
from hpsearch.evaluation.tasks import Tasks
from hpsearch.patch_views import IMAGES_PER_LEVEL, LEVELS, VIEW_NAMES, view_of
from hpsearch.shapes import Bool, Float, Int

NEGATIVES_PER_POSITIVE = 5
"""Divisor of the positives: the imbalanced list has all negatives and a fifth of the positives."""

PAIRS_PER_CHUNK = 1024
"""Pairs per step, so that both sides and their difference fit into a core's cache."""

NUM_BINS = 256
"""Number of bins, with equally many positives, for drawing curves."""


def verify(descriptors: DescriptorTable, tasks: Tasks, *, norm: Norm) -> VerificationScores:
    """Balanced AUC and imbalanced AP by level and kind of negative.

    The list starts with the negatives, so that ties count against the descriptor. Distances are
    float32.
    """
    few = len(tasks.positives) // NEGATIVES_PER_POSITIVE
    lists = (tasks.positives[:few], tasks.positives[few:], tasks.inter, tasks.intra)
    device = descriptors.table.device
    ordered = parallel_map(partial(_in_memory_order, descriptors), lists, device=device)
    parts = [(pairs, level) for level in range(len(LEVELS)) for pairs in ordered]
    sorted_parts = parallel_map(
        lambda part: _distances_by_sequence(descriptors, part[0], level=part[1], norm=norm),
        parts,
        device=device,
    )
    of_levels = [sorted_parts[i : i + len(lists)] for i in range(0, len(parts), len(lists))]
    groups = sequence_groups(descriptors.names)
    found = parallel_map(
        lambda level: level_scores(*level, groups=groups), of_levels, device=device
    )
    return VerificationScores(
        **{name: np.stack([level[name] for level in found]) for name in found[0]}
    )


def level_scores(
    few: list[np.ndarray],
    rest: list[np.ndarray],
    *kinds: list[np.ndarray],
    groups: Bool[np.ndarray, "2 s"],
) -> dict[str, np.ndarray]:
    """Values of ``VerificationScores`` for one level, from sorted distances of each sequence.

    Args:
        few: positives of the imbalanced list.
        rest: the other positives.
        kinds: negatives, inter and intra.
        groups: sequences of each kind, illumination and viewpoint.
    """
    positives = np.sort(np.concatenate(few))
    everything = np.sort(np.concatenate([positives, *rest]))
    edges = positives[(np.arange(1, NUM_BINS + 1) * len(positives) + NUM_BINS - 1) // NUM_BINS - 1]
    negatives = [np.sort(np.concatenate(own)) for own in kinds]
    return {
        "balanced_auc": np.array([_sorted_auc(everything, others) for others in negatives]),
        "imbalanced_ap": np.array([_sorted_ap(positives, others) for others in negatives]),
        "sequence_ap": np.array(
            [[_sorted_ap(p, n) for p, n in zip(few, own, strict=True)] for own in kinds]
        ),
        "ap_without": np.stack([_ap_without_each(few, own) for own in kinds]),
        "group_ap": np.array(
            [[_ap_of_group(few, own, group) for group in groups] for own in kinds]
        ),
        "histogram": np.stack([_distance_histogram(own, edges) for own in (few, *kinds)]),
    }


def _ap_of_group(
    few: list[np.ndarray], negatives: list[np.ndarray], chosen: Bool[np.ndarray, " s"]
) -> float:
    """AP of the pooled pairs of some sequences; NaN without positives or negatives."""
    empty = np.empty(0, np.float32)
    return _sorted_ap(
        *(
            np.sort(np.concatenate([empty, *(own[i] for i in np.flatnonzero(chosen))]))
            for own in (few, negatives)
        )
    )


def _ap_without_each(few: list[np.ndarray], negatives: list[np.ndarray]) -> Float[np.ndarray, " s"]:
    """AP of the pooled pairs of all sequences but each in turn; NaN if nothing remains."""
    positives = np.concatenate(few)
    sequence = np.repeat(np.arange(len(few), dtype=np.int32), [len(own) for own in few])
    order = np.argsort(positives, kind="stable")
    positives, sequence = positives[order], sequence[order]
    ahead = _counts_at_most(np.sort(np.concatenate(negatives)), positives)
    total = sum(map(len, negatives))
    result = np.full(len(few), np.nan)
    for index, own in enumerate(negatives):
        remaining = (ahead - _counts_at_most(own, positives))[sequence != index]
        if len(remaining) and total > len(own):
            result[index] = area_in_steps(remaining)
    return result


def _counts_at_most(
    negatives: Float[np.ndarray, " n"], positives: Float[np.ndarray, " p"]
) -> Int[np.ndarray, " p"]:
    """Number of negatives at or below each positive; both sorted."""
    first = np.searchsorted(positives, negatives, side="left")
    reached = np.bincount(first, minlength=len(positives) + 1)[:-1]
    return reached.cumsum(dtype=np.int32)


class OrderedPairs(NamedTuple):
    """Pairs sorted by the position of their first patch, for sequential memory access.

    Pairs of one list may be reordered, because only the number ahead of a positive counts.
    """

    points: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]
    """Rows of both points in the table."""
    images: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]
    ends: Int[np.ndarray, " s"]
    """Index of the first pair of every sequence but the first."""


def _in_memory_order(descriptors: DescriptorTable, pairs: Int[np.ndarray, "n 6"]) -> OrderedPairs:
    first, second = (
        (descriptors.starts.astype(np.int32)[pairs[:, i]] + pairs[:, i + 2]) for i in (0, 3)
    )
    order = np.argsort(first)
    points = first[order], second[order]
    images = pairs[order, 1], pairs[order, 4]
    ends = np.searchsorted(points[0], descriptors.starts[1:])
    return OrderedPairs(points=points, images=images, ends=ends)


def _distances_by_sequence(
    descriptors: DescriptorTable, pairs: OrderedPairs, *, level: int, norm: Norm
) -> list[Float[np.ndarray, " m"]]:
    """Sorted distances of the pairs whose first patch lies in each sequence."""
    views = view_of(np.arange(IMAGES_PER_LEVEL + 1), level=level)
    first, second = (
        points.astype(np.int64) * len(VIEW_NAMES) + views[images]
        for points, images in zip(pairs.points, pairs.images, strict=True)
    )
    distances = _pair_distances(descriptors, first, second, norm=norm)
    parts = np.split(distances, pairs.ends)
    for part in parts:
        part.sort()
    return parts


def _pair_distances(
    descriptors: DescriptorTable,
    first: Int[np.ndarray, " n"],
    second: Int[np.ndarray, " n"],
    *,
    norm: Norm,
) -> Float[np.ndarray, " n"]:
    """Distances in float32, rounded as in SciPy: the difference, then the norm."""
    rows = descriptors.table.flatten(0, 1)
    left, right = (torch.from_numpy(index).to(rows.device) for index in (first, second))
    result = np.empty(len(first), np.float32)
    for start in range(0, len(first), PAIRS_PER_CHUNK):
        step = slice(start, start + PAIRS_PER_CHUNK)
        difference = rows.index_select(0, left[step]).sub_(rows.index_select(0, right[step]))
        if norm == "l2":
            length = torch.linalg.vector_norm(difference, dim=1, dtype=torch.float64)
            result[step] = length.cpu().numpy()
        else:  # NumPy's summation order of float32, which SciPy uses here
            result[step] = difference.abs_().cpu().numpy().sum(axis=1)
    return result


def _sorted_ap(positives: Float[np.ndarray, " p"], negatives: Float[np.ndarray, " n"]) -> float:
    """AP of sorted distances with the negatives listed first; NaN if either list is empty."""
    if not len(positives) or not len(negatives):
        return float("nan")
    ahead = np.searchsorted(negatives, positives, side="right")
    return float(area_from_counts(ahead, n_positive=len(positives)))


def _sorted_auc(positives: Float[np.ndarray, " p"], negatives: Float[np.ndarray, " n"]) -> float:
    """Share of (positive, negative) pairs with the positive strictly closer."""
    closer = np.searchsorted(positives, negatives, side="left")
    return float(closer.sum() / (len(positives) * len(negatives)))


def _distance_histogram(
    own: list[Float[np.ndarray, " m"]], edges: Float[np.ndarray, " b"]
) -> Int[np.ndarray, "s b"]:
    """Histogram of sorted distances by sequence; each bin includes its upper edge."""
    reached = np.stack([np.searchsorted(part, edges, side="right") for part in own])
    return np.diff(reached, axis=1, prepend=0)
