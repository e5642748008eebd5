"""Pool of distractors, and the number of them that are closer to a query than its positives."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.distances import (
    CenteredCoordinates,
    Norm,
    indexed_distance,
    integral,
    product_dtype,
)
from hpsearch.evaluation.scores import POOL_SIZES
from hpsearch.patch_views import IMAGES_PER_LEVEL, VIEW_NAMES
from hpsearch.shapes import Bool, Float, Int

NUM_POSITIVES = len(VIEW_NAMES) - 1

MAX_SHARE_OF_CLOSER = 0.05
"""Share of distractors near the positives up to which each is compared without sorting."""

MAX_NEAR_TIES = 40
"""Mean number of distractors per query within float32's error of a positive, up to which they are
compared exactly, instead of products in float64."""

MIN_COPIES = 16
"""Copies of a distractor from which on all are counted at once."""

MAX_QUERY_NORM = 2.0**100
"""Squared norm of a query above which float32 products might overflow."""

ROWS_OF_COPIES = 16
"""Queries per step of the comparison with distractors that have many copies."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DistractorPool:
    """Pool of distractors, some of which are ignored for the queries of one sequence.

    Products are float32 where few distractors are as close as a positive. Otherwise they are
    float64 and sorted: many would be within float32's error of a positive, and recomputing those
    would cost more than it saves. Distractors with many equal copies, as of a collapsed
    descriptor, are compared exactly, once for all copies.
    """

    coordinates: CenteredCoordinates
    points: Float[Tensor, "m d"]
    transformed: Float[Tensor, "m d"]
    squared_norms: Float[Tensor, " m"]
    rounded: Float[Tensor, "m d"] | None
    """Transformed points in float32; None where such products are slow or not safe."""
    copied: Int[np.ndarray, " m"]
    """Group of each distractor with many copies, from 0; -1 for others."""
    ignored: Bool[np.ndarray, " m"]
    """Distractors of the queries' sequence."""
    ends: tuple[int, ...]
    """End column of each pool size; ignored columns do not count toward it."""

    @classmethod
    def from_points(cls, points: Float[Tensor, "m d"], *, norm: Norm) -> "DistractorPool":
        """Pool of all distractors, none ignored."""
        frame = CenteredCoordinates.fit(points, norm=norm, dtype=torch.float64)
        transformed = frame.transform(points)
        fast = norm == "l2" and product_dtype(points.device) == torch.float32
        rounded = CenteredCoordinates.fit(points, norm=norm, dtype=torch.float32) if fast else None
        return cls(
            coordinates=frame,
            points=points,
            transformed=transformed,
            squared_norms=frame.squared_norms(transformed),
            rounded=rounded.transform(points) if rounded and rounded.scale == 1 else None,
            copied=_groups_of_copies(points),
            ignored=np.zeros(len(points), bool),
            ends=tuple(min(size - IMAGES_PER_LEVEL, len(points)) for size in POOL_SIZES),
        )

    def without(self, ignored: Bool[np.ndarray, " m"]) -> "DistractorPool":
        """Copy of the pool in which some distractors are ignored."""
        kept = np.flatnonzero(~ignored)
        sizes = [min(size - IMAGES_PER_LEVEL, len(kept)) for size in POOL_SIZES]
        return replace(
            self, ignored=ignored, ends=tuple(int(kept[n - 1]) + 1 if n else 0 for n in sizes)
        )

    def counts(
        self, views: Float[Tensor, "q 16 d"], *, memory: int
    ) -> tuple[Int[np.ndarray, "q 15 7"], Int[np.ndarray, "q 15 7"]]:
        """Number of distractors closer, and closer or equal, than each positive, in each pool."""
        rows = max(memory // (self.squared_norms.nbytes * 2 + 1), 1)
        block = self.transformed.new_empty((min(rows, len(views)), len(self.transformed)))
        skipped = np.flatnonzero(self.ignored | (self.copied >= 0))
        excluded = torch.from_numpy(skipped).to(self.points.device)
        few, parts = self.rounded is not None, []
        for part in views.split(rows):
            found = self._few_counts(part, block, excluded) if few else None
            few = found is not None
            parts.append(self._sorted_counts(part, block, excluded) if found is None else found)
        closer, as_close = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        if (self.copied >= 0).any():
            for start in range(0, len(views), ROWS_OF_COPIES):
                step = slice(start, start + ROWS_OF_COPIES)
                below, upto = self._counts_of_copies(views[step])
                closer[step] += below
                as_close[step] += upto
        return closer, as_close

    def _few_counts(
        self,
        views: Float[Tensor, "q 16 d"],
        block: Float[Tensor, "k m"],
        excluded: Int[Tensor, " i"],
    ) -> tuple[Int[Tensor, "q 15 7"], Int[Tensor, "q 15 7"]] | None:
        """Counts from float32 products; None if too many distractors are close."""
        assert self.rounded is not None
        transformed = self.coordinates.transform(views)
        weight = self.coordinates.squared_norms(transformed)
        if float(weight.max()) > MAX_QUERY_NORM:
            return None
        threshold = self._threshold(transformed, weight)
        frame = replace(self.coordinates, dtype=torch.float32)
        slack = 2 * frame.tolerance(
            weight[:, :1], self._largest(weight), dimension=views.shape[2], exact=False
        )
        low, high = (threshold - slack).numpy(), (threshold + slack).numpy()
        limit = np.nextafter(high.max(axis=1).astype(np.float32), np.float32(np.inf))
        entries = (
            self.coordinates.approximate(
                transformed[:, 0].float(),
                self.rounded,
                weight=self.squared_norms.float(),
                out=block.view(torch.float32)[:, : len(self.rounded)],
            )
            .index_fill_(1, excluded, torch.inf)
            .numpy()
        )
        flat = np.flatnonzero(entries <= limit[:, None])
        if len(flat) > MAX_SHARE_OF_CLOSER * entries.size:
            return None
        row, column = np.divmod(flat, entries.shape[1])
        value = entries[row, column].astype(np.float64)[:, None]
        closer = value < low[row]
        entry, view = np.nonzero(~closer & (value <= high[row]))
        if len(entry) > MAX_NEAR_TIES * len(views):
            return None
        own, distance = self._exact_distances(views, row[entry], view, column[entry])
        as_close = closer.copy()
        closer[entry, view], as_close[entry, view] = distance < own, distance <= own
        segment = row * (len(self.ends) + 1) + np.searchsorted(self.ends, column, side="right")
        below, upto = (
            self._counts_by_pool(one, segment, rows=len(views)) for one in (closer, as_close)
        )
        return below, upto

    def _counts_by_pool(
        self, chosen: Bool[np.ndarray, "c 15"], segment: Int[np.ndarray, " c"], *, rows: int
    ) -> Int[Tensor, "q 15 7"]:
        """Number of chosen entries in each pool.

        Args:
            chosen: True for entries that count, by view.
            segment: row and number of the smallest pool of each entry, ascending.
            rows: number of rows.
        """
        pools = len(self.ends) + 1  # the last is outside of all
        counts = np.zeros((rows * pools, chosen.shape[1]), np.int64)
        if len(segment):
            starts = np.flatnonzero(np.diff(segment, prepend=-1))
            counts[segment[starts]] = np.add.reduceat(chosen, starts, axis=0, dtype=np.int64)
        by_pool = counts.reshape(rows, pools, -1)[:, :-1].cumsum(axis=1)
        return torch.from_numpy(by_pool.transpose(0, 2, 1))

    def _exact_distances(
        self,
        views: Float[Tensor, "q 16 d"],
        row: Int[np.ndarray, " p"],
        view: Int[np.ndarray, " p"],
        column: Int[np.ndarray, " p"],
    ) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
        """Distances of queries to one of their positives and to a distractor."""
        query, target = torch.from_numpy(row), torch.from_numpy(row * len(VIEW_NAMES) + view + 1)
        norm: Norm = self.coordinates.norm
        reference = views[:, 0].contiguous()
        own = indexed_distance(reference, query, views.flatten(0, 1), target, norm=norm)
        other = indexed_distance(reference, query, self.points, torch.from_numpy(column), norm=norm)
        return own.numpy(), other.numpy()

    def _counts_of_copies(
        self, views: Float[Tensor, "q 16 d"]
    ) -> tuple[Int[np.ndarray, "q 15 7"], Int[np.ndarray, "q 15 7"]]:
        """Counts of the distractors with many copies, by exact distances to one of each."""
        first = np.array(
            [np.argmax(self.copied == group) for group in range(self.copied.max() + 1)]
        )
        counting = (self.copied >= 0) & ~self.ignored
        copies = np.stack(
            [
                np.bincount(self.copied[:end][counting[:end]], minlength=len(first))
                for end in self.ends
            ],
            axis=1,
        )
        device, norm = views.device, self.coordinates.norm
        row, one = (
            torch.from_numpy(index.ravel()).to(device)
            for index in np.indices((len(views), len(first)))
        )
        reference, columns = views[:, 0].contiguous(), torch.from_numpy(first).to(device)
        distance = indexed_distance(reference, row, self.points, columns[one], norm=norm)
        pair, view = (
            torch.from_numpy(index.ravel()).to(device)
            for index in np.indices((len(views), NUM_POSITIVES))
        )
        target = pair * len(VIEW_NAMES) + view + 1
        own = indexed_distance(reference, pair, views.flatten(0, 1), target, norm=norm)
        far = distance.cpu().numpy().reshape(len(views), 1, -1)
        near = own.cpu().numpy().reshape(len(views), -1, 1)
        return (far < near) @ copies, (far <= near) @ copies

    def _sorted_counts(
        self,
        views: Float[Tensor, "q 16 d"],
        block: Float[Tensor, "k m"],
        excluded: Int[Tensor, " i"],
    ) -> tuple[Int[Tensor, "q 15 7"], Int[Tensor, "q 15 7"]]:
        """Counts from sorted float64 products."""
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
        block.index_fill_(1, excluded, torch.inf)
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


def _groups_of_copies(points: Float[Tensor, "m d"]) -> Int[np.ndarray, " m"]:
    """Group, from 0, of each point with at least ``MIN_COPIES`` equal ones; -1 for others."""
    number: dict[bytes, int] = {}
    group = np.array(
        [number.setdefault(row.tobytes(), len(number)) for row in points.cpu().numpy()]
    )
    many = np.bincount(group, minlength=len(number)) >= MIN_COPIES
    return np.where(many, many.cumsum() - 1, -1)[group]


def sort_rows(values: Float[Tensor, "q m"]) -> Float[Tensor, "q m"]:
    """Sort rows in ascending order; on a CPU by NumPy, which is five times faster."""
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))
