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
    parallel_map,
)
from hpsearch.evaluation.neighbor_screens import ProductScreen, fast_screen
from hpsearch.evaluation.scores import MatchingScores
from hpsearch.patch_views import IMAGES_PER_LEVEL, LEVELS, VIEW_NAMES
from hpsearch.shapes import Float, Int

NUM_TARGETS = len(VIEW_NAMES) - 1

MAX_BLOCK_BYTES = 2**22
"""Maximum bytes of a block of distances on a CPU, so that it stays in a cache."""

BYTES_PER_ENTRY = 64
"""Bytes of working memory for one candidate, indices and distance, rounded up."""

MAX_CANDIDATES_PER_ROW = 8
"""Mean number of candidates per row above which a finer screen costs less than exact distances."""


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
    search = NeighborSearch(views, norm=norm, memory=memory)
    found = [search.nearest(views[:, 1 + view].contiguous()) for view in range(NUM_TARGETS)]
    index, distance = (torch.stack(part, dim=1) for part in zip(*found, strict=True))
    return index.cpu().numpy(), distance.cpu().numpy()


class NeighborSearch:
    """Search for the nearest neighbors of the reference descriptors of one sequence.

    Products preselect candidates, whose exact distances decide. Where many candidates remain,
    first equal descriptors are reduced to one, and then products are float64: descriptors that have
    collapsed to a few points, or close to them, would otherwise all be candidates.
    """

    def __init__(self, views: Float[Tensor, "n 16 d"], *, norm: Norm, memory: int) -> None:
        self.views, self.memory = views, memory
        self.norm: Norm = norm
        self.reference = views[:, 0].contiguous()
        self.screen = fast_screen(views, self.reference, norm=norm)
        self.distinct_only = False

    def nearest(
        self, targets: Float[Tensor, "m d"]
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """Index and distance of the first closest target of every reference descriptor."""
        while True:
            first = _first_of_equal(targets) if self.distinct_only else None
            with torch.autocast(targets.device.type, enabled=False):
                found = self._settle(targets if first is None else targets[first])
            if found is not None:
                index, distance = found
                return index if first is None else first[index], distance
            self._use_finer_screen()

    def _use_finer_screen(self) -> None:
        if not self.distinct_only:
            self.distinct_only = True
            return
        every = self.views.flatten(0, 1)
        frame = CenteredCoordinates.fit(every, norm=self.norm, dtype=torch.float64)
        self.screen = ProductScreen(self.reference, frame)

    def _settle(
        self, targets: Float[Tensor, "m d"]
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]] | None:
        """Index and distance of the nearest targets; None if a finer screen should be used."""
        points = len(self.reference)
        row_bytes = len(targets) * self.screen.item_size
        rows = min(_rows_of_block(self.memory, row_bytes=row_bytes, device=targets.device), points)
        buffer = CandidateBuffer(
            self.reference, targets, norm=self.norm, limit=self.memory // BYTES_PER_ENTRY
        )
        candidates = self.screen.prepare(targets, rows=rows)
        for start in range(0, points, rows):
            step = slice(start, min(start + rows, points))
            row, column = candidates(step)
            crowded = len(row) > MAX_CANDIDATES_PER_ROW * (step.stop - start)
            if crowded and not (self.distinct_only and self.screen.is_finest):
                return None
            buffer.add(start, row, column, groups=step.stop - start)
        return buffer.finish()


def _first_of_equal(targets: Float[Tensor, "n d"]) -> Int[Tensor, " m"]:
    """Indices of the targets that do not equal an earlier one, in ascending order."""
    first: dict[bytes, int] = {}
    for index, row in enumerate(targets.cpu().numpy()):
        first.setdefault(row.tobytes(), index)
    return torch.tensor(list(first.values()), device=targets.device)


def _rows_of_block(memory: int, *, row_bytes: int, device: torch.device) -> int:
    """Number of rows of a block, limited by the cache of a core or by ``memory``."""
    if device.type == "cpu":
        memory = min(memory, 2 * MAX_BLOCK_BYTES)
    return max(memory // (2 * row_bytes), 1)


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
        self.found: list[tuple[Tensor, Tensor]] = []

    def add(self, start: int, row: Tensor, column: Tensor, *, groups: int) -> None:
        """Add the candidates of one block of rows; resolve all if there are too many."""
        self.parts.append((row + self.groups, row + start, column))
        self.groups += groups
        self.candidates += len(row)
        if self.candidates > self.limit:
            self._resolve()

    def finish(self) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """Index and distance of the first closest candidate of every row."""
        if self.parts:
            self._resolve()
        index, distance = (torch.cat(part) for part in zip(*self.found, strict=True))
        return index, distance

    def _resolve(self) -> None:
        group, row, column = (torch.cat(part) for part in zip(*self.parts, strict=True))
        distance = indexed_distance(self.reference, row, self.targets, column, norm=self.norm)
        self.found.append(_first_closest(group, column, distance, n=self.groups))
        self.parts, self.groups, self.candidates = [], 0, 0


def _first_closest(
    group: Tensor, column: Tensor, distance: Tensor, *, n: int
) -> tuple[Tensor, Tensor]:
    """Smallest distance of each of n groups, and the lowest column with that distance.

    Groups are in ascending order, each with at least one entry, and so are the columns of a group.
    """
    if group.device.type == "cpu":
        return _first_closest_on_cpu(group.numpy(), column.numpy(), distance.numpy(), n=n)
    least = distance.new_full((n,), torch.inf).scatter_reduce_(0, group, distance, "amin")
    best = distance == least[group]
    last = torch.iinfo(torch.int64).max
    first = column.new_full((n,), last).scatter_reduce_(0, group[best], column[best], "amin")
    return first, least


def _first_closest_on_cpu(
    group: Int[np.ndarray, " c"],
    column: Int[np.ndarray, " c"],
    distance: Float[np.ndarray, " c"],
    *,
    n: int,
) -> tuple[Tensor, Tensor]:
    least = np.minimum.reduceat(distance, np.searchsorted(group, np.arange(n)))
    best = np.flatnonzero(distance == least[group])
    first = np.searchsorted(group[best], np.arange(n))
    return torch.from_numpy(column[best[first]]), torch.from_numpy(least)
