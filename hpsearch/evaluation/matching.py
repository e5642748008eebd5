"""Matching: which patch of the target image is this reference patch?"""

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.average_precision import average_precision
from hpsearch.evaluation.descriptors import Bank
from hpsearch.evaluation.distances import (
    Frame,
    Norm,
    indexed_distance,
    integral,
    product_dtype,
)
from hpsearch.evaluation.scores import MatchingScores
from hpsearch.evaluation.views import IMAGES, LEVELS, VIEW_NAMES
from hpsearch.shapes import Float, Int

TARGETS = len(VIEW_NAMES) - 1


def match(bank: Bank, *, norm: Norm, memory: int) -> MatchingScores:
    """AP and success rate of every reference-target pair of views.

    The list holds one match a reference patch, its nearest neighbour (the first on ties), in the
    order of patches; a reference patch that is matched wrongly is a positive never found.
    """
    ap = np.empty((len(bank.counts), TARGETS))
    success = np.empty_like(ap)
    for sequence in range(len(bank.counts)):
        index, distance = nearest(bank.sequence(sequence), norm=norm, memory=memory)
        correct = index == np.arange(len(index))[:, None]
        success[sequence] = correct.mean(axis=0)
        ap[sequence] = [
            average_precision(distance[:, view], correct[:, view], n_positive=len(index))
            for view in range(TARGETS)
        ]
    shape = (len(bank.counts), len(LEVELS), IMAGES)
    return MatchingScores(ap=ap.reshape(shape), success_rate=success.reshape(shape))


def nearest(
    views: Float[Tensor, "n 16 d"], *, norm: Norm, memory: int
) -> tuple[Int[np.ndarray, "n 15"], Float[np.ndarray, "n 15"]]:
    """Nearest descriptor in every target view of each reference descriptor, and its distance.

    Args:
        memory: bytes for a block of distances.
    """
    points, _, dimension = views.shape
    frame = Frame.around(views.flatten(0, 1), norm=norm, dtype=product_dtype(views.device))
    reference = views[:, 0]
    targets = views[:, 1:].transpose(0, 1).flatten(0, 1)
    a, b = frame.place(reference), frame.place(targets)
    weight = frame.weight(b)
    tolerance = frame.tolerance(
        frame.weight(a), weight.max(), dimension=dimension, exact=integral(a) and integral(b)
    )
    rows = max(memory // (len(b) * a.element_size() * 2), 1)
    block = b.new_empty((min(rows, points), len(b)))
    found = []
    for start in range(0, points, rows):
        step = slice(start, start + rows)
        filled = frame.approximate(a[step], b, weight=weight, out=block).view(-1, TARGETS, points)
        row, view, column = _candidates(filled, tolerance[step])
        distance = indexed_distance(
            reference, row + start, targets, view * points + column, norm=norm
        )
        found.append(
            _first_closest(row * TARGETS + view, column, distance, n=len(filled) * TARGETS)
        )
    index, distance = (torch.cat(part).view(points, TARGETS) for part in zip(*found, strict=True))
    return index.cpu().numpy(), distance.cpu().numpy()


def _candidates(
    block: Float[Tensor, "r 15 n"], tolerance: Float[Tensor, " r"]
) -> tuple[Tensor, ...]:
    """Row, view and column of whatever may be the nearest, in this order."""
    if not tolerance.any():
        column = block.argmin(dim=2)  # exact, and the first on ties
        row, view = torch.ones_like(column, dtype=torch.bool).nonzero(as_tuple=True)
        return row, view, column.flatten()
    least = block.amin(dim=2, keepdim=True)
    # one ulp more, because the limit itself is rounded
    limit = torch.nextafter(
        (least + 2 * tolerance[:, None, None]).to(block.dtype), torch.tensor(torch.inf).to(block)
    )
    return (block <= limit).nonzero(as_tuple=True)


def _first_closest(
    group: Tensor, column: Tensor, distance: Tensor, *, n: int
) -> tuple[Tensor, Tensor]:
    """Smallest distance of each of n groups, and the lowest column that has it."""
    least = distance.new_full((n,), torch.inf).scatter_reduce_(0, group, distance, "amin")
    best = distance == least[group]
    last = torch.iinfo(torch.int64).max
    first = column.new_full((n,), last).scatter_reduce_(0, group[best], column[best], "amin")
    return first, least
