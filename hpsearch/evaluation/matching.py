"""Matching task: nearest neighbors of reference patches in target images."""

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.average_precision import average_precision
from hpsearch.evaluation.descriptor_table import DescriptorTable
from hpsearch.evaluation.distances import (
    CenteredCoordinates,
    Norm,
    indexed_distance,
    integral,
    parallel_map,
    product_dtype,
)
from hpsearch.evaluation.scores import MatchingScores
from hpsearch.patch_views import IMAGES_PER_LEVEL, LEVELS, VIEW_NAMES
from hpsearch.shapes import Float, Int

NUM_TARGETS = len(VIEW_NAMES) - 1

L2_CACHE_BYTES = 2**20
"""Maximum bytes of a block of distances on a CPU, so that it stays in a core's cache."""

BYTES_PER_ENTRY = 64
"""Bytes of working memory for one candidate, indices and distance, rounded up."""


def match(descriptors: DescriptorTable, *, norm: Norm, memory: int) -> MatchingScores:
    """AP and success rate of every reference-target pair of views.

    The list has one match per reference patch, its nearest neighbor (the first in case of ties), in
    the order of patches; a wrongly matched reference patch is a positive that is not found.
    """

    def of_sequence(sequence: int) -> tuple[Float[np.ndarray, " 15"], Float[np.ndarray, " 15"]]:
        index, distance = nearest(descriptors.sequence(sequence), norm=norm, memory=memory)
        correct = index == np.arange(len(index))[:, None]
        areas = [
            average_precision(distance[:, view], correct[:, view], n_positive=len(index))
            for view in range(NUM_TARGETS)
        ]
        return np.array(areas), correct.mean(axis=0)

    found = parallel_map(
        of_sequence, range(len(descriptors.counts)), device=descriptors.table.device
    )
    ap, success = (np.stack(part) for part in zip(*found, strict=True))
    shape = (len(descriptors.counts), len(LEVELS), IMAGES_PER_LEVEL)
    return MatchingScores(ap=ap.reshape(shape), success_rate=success.reshape(shape))


def nearest(
    views: Float[Tensor, "n 16 d"], *, norm: Norm, memory: int
) -> tuple[Int[np.ndarray, "n 15"], Float[np.ndarray, "n 15"]]:
    """Nearest descriptor of each reference descriptor in every target view, and its distance.

    Args:
        views: descriptors of one sequence.
        norm: norm of the distance.
        memory: bytes for a block of distances.
    """
    points, _, dimension = views.shape
    frame = CenteredCoordinates.fit(
        views.flatten(0, 1), norm=norm, dtype=product_dtype(views.device)
    )
    reference, targets = views[:, 0].contiguous(), views[:, 1:].transpose(0, 1).contiguous()
    a, b = frame.transform(reference), frame.transform(targets)
    weight = frame.squared_norms(b)
    exact = integral(a) and integral(b.flatten(0, 1))
    tolerance = frame.tolerance(
        frame.squared_norms(a), weight.max(), dimension=dimension, exact=exact
    )
    rows = _rows_of_block(memory, row_bytes=points * a.element_size(), device=views.device)
    block = b.new_empty((min(rows, points), points))
    found: list[tuple[Tensor, Tensor]] = []
    buffer = CandidateBuffer(
        reference, targets.flatten(0, 1), norm=norm, limit=memory // BYTES_PER_ENTRY
    )
    for view in range(NUM_TARGETS):
        for start in range(0, points, rows):
            step = slice(start, start + rows)
            filled = frame.approximate(a[step], b[view], weight=weight[view], out=block)
            row, column = _candidates(filled, tolerance[step], exact=exact)
            found += buffer.add(view, start, row, column, groups=len(filled))
    found += buffer.resolve()
    index, distance = (
        torch.cat(part).view(NUM_TARGETS, points).T for part in zip(*found, strict=True)
    )
    return index.cpu().numpy(), distance.cpu().numpy()


def _rows_of_block(memory: int, *, row_bytes: int, device: torch.device) -> int:
    """Number of rows of a block, limited by the cache of a core or by ``memory``."""
    if device.type == "cpu":
        memory = min(memory, 2 * L2_CACHE_BYTES)
    return max(memory // (2 * row_bytes), 1)


def _candidates(
    block: Float[Tensor, "r n"], tolerance: Float[Tensor, " r"], *, exact: bool
) -> tuple[Int[Tensor, " c"], Int[Tensor, " c"]]:
    """Row and column of every candidate for the nearest neighbor, in this order."""
    if exact and not tolerance.any():
        column = block.argmin(dim=1)  # the first in case of ties
        return torch.arange(len(block), device=block.device), column
    least = block.amin(dim=1, keepdim=True)
    # one ulp more, because the limit is rounded
    limit = torch.nextafter(
        (least + 2 * tolerance[:, None]).to(block.dtype), torch.tensor(torch.inf).to(block)
    )
    near = block <= limit
    if near.device.type != "cpu":
        row, column = near.nonzero(as_tuple=True)
        return row, column
    # NumPy is several times faster than torch here
    flat = torch.from_numpy(np.flatnonzero(near.numpy()))
    row = flat // block.shape[1]
    return row, flat - row * block.shape[1]


class CandidateBuffer:
    """Buffer of candidates of several blocks, which are resolved in one call.

    It contains at most ``limit`` candidates plus one block, however many distances are equal.
    """

    def __init__(
        self,
        reference: Float[Tensor, "n d"],
        targets: Float[Tensor, "m d"],
        *,
        norm: Norm,
        limit: int,
    ) -> None:
        self.reference, self.targets = reference, targets
        self.norm: Norm = norm
        self.limit = limit
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self.groups = self.candidates = 0

    def add(
        self, view: int, start: int, row: Tensor, column: Tensor, *, groups: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Add the candidates of one block; resolve all if there are too many."""
        self.parts.append((row + self.groups, row + start, column + view * len(self.reference)))
        self.groups += groups
        self.candidates += len(row)
        return self.resolve() if self.candidates > self.limit else []

    def resolve(self) -> list[tuple[Tensor, Tensor]]:
        """Index and distance of the first closest candidate of every group; empties the buffer."""
        if not self.parts:
            return []
        group, row, column = (torch.cat(part) for part in zip(*self.parts, strict=True))
        distance = indexed_distance(self.reference, row, self.targets, column, norm=self.norm)
        within = column % len(self.reference)
        found = _first_closest(group, within, distance, n=self.groups)
        self.parts, self.groups, self.candidates = [], 0, 0
        return [found]


def _first_closest(
    group: Tensor, column: Tensor, distance: Tensor, *, n: int
) -> tuple[Tensor, Tensor]:
    """Smallest distance of each of n groups, and the lowest column with that distance."""
    least = distance.new_full((n,), torch.inf).scatter_reduce_(0, group, distance, "amin")
    best = distance == least[group]
    last = torch.iinfo(torch.int64).max
    first = column.new_full((n,), last).scatter_reduce_(0, group[best], column[best], "amin")
    return first, least
