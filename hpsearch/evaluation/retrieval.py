"""Retrieval task: ranks of the other views of a patch among distractors."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.average_precision import area_from_counts
from hpsearch.evaluation.descriptor_table import DescriptorTable
from hpsearch.evaluation.distances import (
    CenteredCoordinates,
    Norm,
    indexed_distance,
    integral,
    parallel_map,
)
from hpsearch.evaluation.scores import POOL_SIZES, RetrievalScores
from hpsearch.evaluation.tasks import Tasks
from hpsearch.patch_views import IMAGES_PER_LEVEL, LEVELS, VIEW_NAMES
from hpsearch.shapes import Bool, Float, Int

NUM_POSITIVES = len(VIEW_NAMES) - 1


def retrieve(
    descriptors: DescriptorTable, tasks: Tasks, *, norm: Norm, memory: int
) -> RetrievalScores:
    """AP of every query by level and pool size.

    The list of a query starts with the five views of its level, so that ties favor the descriptor,
    followed by the distractors in file order, without those of the query's own sequence; a pool is
    a prefix of the list. AP depends only on the number of distractors in the pool that are closer
    than each positive, and one sorted row gives it for every level and pool.
    """
    ap = np.empty((len(LEVELS), len(POOL_SIZES), len(tasks.queries)))
    neutral = np.empty((len(LEVELS), len(tasks.queries)))
    all_distractors = DistractorPool.from_points(
        descriptors.table[_row_indices(descriptors, tasks.distractors), 0], norm=norm
    )
    threads = torch.get_num_threads() if descriptors.table.device.type == "cpu" else 1

    def of_sequence(sequence: int) -> None:
        own = np.flatnonzero(tasks.queries[:, 0] == sequence)
        pool = all_distractors.without(tasks.distractors[:, 0] == sequence)
        views = descriptors.table[_row_indices(descriptors, tasks.queries[own])]
        closer, as_close = pool.counts(views, memory=memory // threads)
        ap[:, :, own] = _positives_ap(closer)
        neutral[:, own] = _positives_ap((closer + as_close)[..., -1:] / 2)[:, 0]

    sequences = np.unique(tasks.queries[:, 0]).tolist()
    parallel_map(of_sequence, sequences, device=descriptors.table.device)
    return RetrievalScores(
        ap=ap, tie_neutral_ap=neutral, sequence=tasks.queries[:, 0].astype(np.int64)
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class DistractorPool:
    """Pool of distractors, some of which are ignored for the queries of one sequence.

    Products are float64: with thousands of distractors, many are within float32's error of a
    positive, and recomputing those would cost more than it saves.
    """

    coordinates: CenteredCoordinates
    points: Float[Tensor, "m d"]
    transformed: Float[Tensor, "m d"]
    squared_norms: Float[Tensor, " m"]
    ignored: Int[Tensor, " i"]
    ends: tuple[int, ...]
    """End column of each pool size; ignored columns do not count toward it."""

    @classmethod
    def from_points(cls, points: Float[Tensor, "m d"], *, norm: Norm) -> "DistractorPool":
        """Pool of all distractors, none ignored."""
        frame = CenteredCoordinates.fit(points, norm=norm, dtype=torch.float64)
        transformed = frame.transform(points)
        return cls(
            coordinates=frame,
            points=points,
            transformed=transformed,
            squared_norms=frame.squared_norms(transformed),
            ignored=torch.empty(0, dtype=torch.int64, device=points.device),
            ends=tuple(min(size - IMAGES_PER_LEVEL, len(points)) for size in POOL_SIZES),
        )

    def without(self, ignored: Bool[np.ndarray, " m"]) -> "DistractorPool":
        """Copy of the pool in which some distractors are ignored."""
        kept = np.flatnonzero(~ignored)
        sizes = [min(size - IMAGES_PER_LEVEL, len(kept)) for size in POOL_SIZES]
        return replace(
            self,
            ignored=torch.from_numpy(np.flatnonzero(ignored)).to(self.points.device),
            ends=tuple(int(kept[n - 1]) + 1 if n else 0 for n in sizes),
        )

    def counts(
        self, views: Float[Tensor, "q 16 d"], *, memory: int
    ) -> tuple[Int[np.ndarray, "q 15 7"], Int[np.ndarray, "q 15 7"]]:
        """Number of distractors closer, and closer or equal, than each positive, in each pool."""
        rows = max(memory // (self.squared_norms.nbytes * 2 + 1), 1)
        block = self.transformed.new_empty((min(rows, len(views)), len(self.transformed)))
        parts = [self._counts_of(part, block=block) for part in views.split(rows)]
        closer, as_close = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        return closer, as_close

    def _counts_of(
        self, views: Float[Tensor, "q 16 d"], *, block: Float[Tensor, "k m"]
    ) -> tuple[Int[Tensor, "q 15 7"], Int[Tensor, "q 15 7"]]:
        transformed = self.coordinates.transform(views)
        weight = self.coordinates.squared_norms(transformed)
        threshold = self._threshold(transformed, weight)
        exact = self.coordinates.exact and integral(transformed.flatten(0, 1))
        slack = 2 * self.coordinates.tolerance(
            weight[:, :1], self._largest(weight), dimension=views.shape[2], exact=exact
        )
        rows = len(block)
        block = self.coordinates.approximate(
            transformed[:, 0], self.transformed, weight=self.squared_norms, out=block
        )
        block.index_fill_(1, self.ignored, torch.inf)
        low, high = threshold - slack, threshold + slack
        closer, as_close = self._count_between(block, low, high)
        unsure = (closer[..., -1] != as_close[..., -1]) & (slack > 0)
        for pairs in unsure.nonzero().split(rows):
            row, view = pairs.unbind(1)
            entries = block[row]
            near = (entries >= low[row, view, None]) & (entries <= high[row, view, None])
            below, equal = self._recheck_near_ties(views[row], view, near)
            as_close[row, view] = closer[row, view] + below + equal
            closer[row, view] += below
        return closer, as_close

    def _largest(self, weight: Float[Tensor, "q 16"]) -> Float[Tensor, "q 1"]:
        """Largest squared norm of a point that may be as close to each query as a positive.

        A distractor with more than three times the sum of the norms of two queries and a positive
        is farther, whatever the rounding: an outlier must not widen the bound for all others.
        """
        length = weight if self.coordinates.norm == "l1" else weight.sqrt()
        reach = 3 * (2 * length[:, :1] + length.amax(dim=1, keepdim=True))
        bound = reach if self.coordinates.norm == "l1" else reach.square()
        every = torch.maximum(weight.amax(dim=1, keepdim=True), self.squared_norms.max())
        return torch.minimum(every, bound)

    def _threshold(
        self, transformed: Float[Tensor, "q 16 d"], weight: Float[Tensor, "q 16"]
    ) -> Float[Tensor, "q 15"]:
        """Distance of each query to its positives, on the scale of ``approximate``."""
        if self.coordinates.norm == "l1":
            return (transformed[:, :1] - transformed[:, 1:]).abs().sum(dim=2)
        return weight[:, 1:] - 2 * (transformed[:, :1] * transformed[:, 1:]).sum(dim=2)

    def _count_between(
        self, block: Float[Tensor, "q m"], low: Float[Tensor, "q 15"], high: Float[Tensor, "q 15"]
    ) -> tuple[Int[Tensor, "q 15 7"], Int[Tensor, "q 15 7"]]:
        """Number of entries below ``low``, and at or below ``high``, in each pool."""
        # at or below high means below the next larger number
        above = torch.nextafter(high, torch.full_like(high, torch.inf))
        limits, counts, start = torch.cat([low, above], dim=1), [], 0
        for end in self.ends:
            counts.append(torch.searchsorted(sort_rows(block[:, start:end]), limits))
            start = end
        below, upto = torch.stack(counts, dim=2).cumsum(dim=2).chunk(2, dim=1)
        return below.clone(), upto.clone()

    def _recheck_near_ties(
        self, views: Float[Tensor, "p 16 d"], view: Int[Tensor, " p"], near: Tensor
    ) -> tuple[Int[Tensor, "p 7"], Int[Tensor, "p 7"]]:
        """Number of near entries exactly closer than the positive, and equal, in each pool."""
        pair = torch.arange(len(views), device=views.device)
        own = indexed_distance(
            views[:, 0],
            pair,
            views.flatten(0, 1),
            pair * len(VIEW_NAMES) + view + 1,
            norm=self.coordinates.norm,
        )
        row, column = near.nonzero(as_tuple=True)
        distance = indexed_distance(
            views[:, 0], row, self.points, column, norm=self.coordinates.norm
        )
        ends = torch.tensor(self.ends, device=views.device)
        inside = column[:, None] < ends
        zero = torch.zeros((len(views), len(self.ends)), dtype=torch.int64, device=views.device)
        below = zero.index_add(0, row, (inside & (distance < own[row])[:, None]).long())
        equal = zero.index_add(0, row, (inside & (distance == own[row])[:, None]).long())
        return below, equal


def sort_rows(values: Float[Tensor, "q m"]) -> Float[Tensor, "q m"]:
    """Sort rows in ascending order; on a CPU by NumPy, which is five times faster."""
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


def _row_indices(descriptors: DescriptorTable, points: Int[np.ndarray, "n 2"]) -> Tensor:
    rows = descriptors.starts[points[:, 0]] + points[:, 1]
    return torch.from_numpy(rows).to(descriptors.table.device)


def _positives_ap(ahead: Float[np.ndarray, "q 15 k"]) -> Float[np.ndarray, "3 k q"]:
    """AP from the number of distractors closer than each positive, in ascending order."""
    levels = ahead.reshape(len(ahead), len(LEVELS), IMAGES_PER_LEVEL, -1)
    return area_from_counts(
        np.sort(levels, axis=2).transpose(1, 3, 0, 2), n_positive=IMAGES_PER_LEVEL
    )
