"""Retrieval: are the other views of a patch found among distractors?"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.average_precision import area_from_counts
from hpsearch.evaluation.descriptor_table import Bank
from hpsearch.evaluation.distances import Frame, Norm, indexed_distance, integral, on_cores
from hpsearch.evaluation.scores import POOLS, RetrievalScores
from hpsearch.evaluation.tasks import Tasks
from hpsearch.patch_views import IMAGES, LEVELS, VIEW_NAMES
from hpsearch.shapes import Bool, Float, Int

POSITIVES = len(VIEW_NAMES) - 1


def retrieve(bank: Bank, tasks: Tasks, *, norm: Norm, memory: int) -> RetrievalScores:
    """AP of every query by level and pool size.

    The list of a query holds the five views of its level first, so a tie counts for the descriptor,
    then the distractors in the order of their file without those of the query's own sequence; a
    pool is the front of the list. AP needs no more than the number of distractors in the pool that
    are closer than each positive, and one sorted row gives that for every level and pool.
    """
    ap = np.empty((len(LEVELS), len(POOLS), len(tasks.queries)))
    neutral = np.empty((len(LEVELS), len(tasks.queries)))
    whole = Pool.of(bank.table[_rows(bank, tasks.distractors), 0], norm=norm)
    threads = torch.get_num_threads() if bank.table.device.type == "cpu" else 1

    def of_sequence(sequence: int) -> None:
        own = np.flatnonzero(tasks.queries[:, 0] == sequence)
        pool = whole.without(tasks.distractors[:, 0] == sequence)
        views = bank.table[_rows(bank, tasks.queries[own])]
        closer, as_close = pool.counts(views, memory=memory // threads)
        ap[:, :, own] = _ap(closer)
        neutral[:, own] = _ap((closer + as_close)[..., -1:] / 2)[:, 0]

    sequences = np.unique(tasks.queries[:, 0]).tolist()
    on_cores(of_sequence, sequences, device=bank.table.device)
    return RetrievalScores(
        ap=ap, tie_neutral_ap=neutral, sequence=tasks.queries[:, 0].astype(np.int64)
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool:
    """Distractors, of which some are ignored for the queries of one sequence.

    Products are float64 here: with thousands of distractors many lie within float32's error of a
    positive, and looking at those again would cost more than it saves.
    """

    frame: Frame
    points: Float[Tensor, "m d"]
    placed: Float[Tensor, "m d"]
    weight: Float[Tensor, " m"]
    exact: bool
    """Whether all placed points are integers."""
    ignored: Int[Tensor, " i"]
    ends: tuple[int, ...]
    """Columns up to which each pool size reaches; ignored columns do not count towards it."""

    @classmethod
    def of(cls, points: Float[Tensor, "m d"], *, norm: Norm) -> "Pool":
        """All the distractors, none ignored."""
        frame = Frame.around(points, norm=norm, dtype=torch.float64)
        placed = frame.place(points)
        return cls(
            frame=frame,
            points=points,
            placed=placed,
            weight=frame.weight(placed),
            exact=integral(placed),
            ignored=torch.empty(0, dtype=torch.int64, device=points.device),
            ends=tuple(min(size - IMAGES, len(points)) for size in POOLS),
        )

    def without(self, ignored: Bool[np.ndarray, " m"]) -> "Pool":
        """The pool as the queries of a sequence see it."""
        kept = np.flatnonzero(~ignored)
        sizes = [min(size - IMAGES, len(kept)) for size in POOLS]
        return replace(
            self,
            ignored=torch.from_numpy(np.flatnonzero(ignored)).to(self.points.device),
            ends=tuple(int(kept[n - 1]) + 1 if n else 0 for n in sizes),
        )

    def counts(
        self, views: Float[Tensor, "q 16 d"], *, memory: int
    ) -> tuple[Int[np.ndarray, "q 15 7"], Int[np.ndarray, "q 15 7"]]:
        """Distractors closer than each positive, and closer or as close, in each pool."""
        rows = max(memory // (self.weight.nbytes * 2 + 1), 1)
        block = self.placed.new_empty((min(rows, len(views)), len(self.placed)))
        parts = [self._counts_of(part, block=block) for part in views.split(rows)]
        closer, as_close = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        return closer, as_close

    def _counts_of(
        self, views: Float[Tensor, "q 16 d"], *, block: Float[Tensor, "k m"]
    ) -> tuple[Int[Tensor, "q 15 7"], Int[Tensor, "q 15 7"]]:
        placed = self.frame.place(views)
        weight = self.frame.weight(placed)
        threshold = self._threshold(placed, weight)
        largest = torch.cat([weight.flatten(), self.weight]).max()
        exact = self.exact and integral(placed.flatten(0, 1))
        slack = 2 * self.frame.tolerance(
            weight[:, :1], largest, dimension=views.shape[2], exact=exact
        )
        rows = len(block)
        block = self.frame.approximate(placed[:, 0], self.placed, weight=self.weight, out=block)
        block.index_fill_(1, self.ignored, torch.inf)
        low, high = threshold - slack, threshold + slack
        closer, as_close = self._between(block, low, high)
        unsure = (closer[..., -1] != as_close[..., -1]) & (slack > 0)
        for pairs in unsure.nonzero().split(rows):
            row, view = pairs.unbind(1)
            entries = block[row]
            near = (entries >= low[row, view, None]) & (entries <= high[row, view, None])
            below, equal = self._look_again(views[row], view, near)
            as_close[row, view] = closer[row, view] + below + equal
            closer[row, view] += below
        return closer, as_close

    def _threshold(
        self, placed: Float[Tensor, "q 16 d"], weight: Float[Tensor, "q 16"]
    ) -> Float[Tensor, "q 15"]:
        """Approximate distance of each query to its positives, on the scale of the block."""
        if self.frame.norm == "l1":
            return (placed[:, :1] - placed[:, 1:]).abs().sum(dim=2)
        return weight[:, 1:] - 2 * (placed[:, :1] * placed[:, 1:]).sum(dim=2)

    def _between(
        self, block: Float[Tensor, "q m"], low: Float[Tensor, "q 15"], high: Float[Tensor, "q 15"]
    ) -> tuple[Int[Tensor, "q 15 7"], Int[Tensor, "q 15 7"]]:
        """How many entries lie below ``low`` and how many at or below ``high``, in each pool."""
        # at or below high is below the next number after it
        above = torch.nextafter(high, torch.full_like(high, torch.inf))
        limits, counts, start = torch.cat([low, above], dim=1), [], 0
        for end in self.ends:
            counts.append(torch.searchsorted(sort_rows(block[:, start:end]), limits))
            start = end
        below, upto = torch.stack(counts, dim=2).cumsum(dim=2).chunk(2, dim=1)
        return below.clone(), upto.clone()

    def _look_again(
        self, views: Float[Tensor, "p 16 d"], view: Int[Tensor, " p"], near: Tensor
    ) -> tuple[Int[Tensor, "p 7"], Int[Tensor, "p 7"]]:
        """Near entries truly closer than the positive, and those as close, in each pool."""
        pair = torch.arange(len(views), device=views.device)
        own = indexed_distance(
            views[:, 0],
            pair,
            views.flatten(0, 1),
            pair * len(VIEW_NAMES) + view + 1,
            norm=self.frame.norm,
        )
        row, column = near.nonzero(as_tuple=True)
        distance = indexed_distance(views[:, 0], row, self.points, column, norm=self.frame.norm)
        ends = torch.tensor(self.ends, device=views.device)
        inside = column[:, None] < ends
        zero = torch.zeros((len(views), len(self.ends)), dtype=torch.int64, device=views.device)
        below = zero.index_add(0, row, (inside & (distance < own[row])[:, None]).long())
        equal = zero.index_add(0, row, (inside & (distance == own[row])[:, None]).long())
        return below, equal


def sort_rows(values: Float[Tensor, "q m"]) -> Float[Tensor, "q m"]:
    """Rows in ascending order; on a CPU by NumPy, whose vectorised sort is five times faster."""
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


def _rows(bank: Bank, points: Int[np.ndarray, "n 2"]) -> Tensor:
    rows = bank.starts[points[:, 0]] + points[:, 1]
    return torch.from_numpy(rows).to(bank.table.device)


def _ap(ahead: Float[np.ndarray, "q 15 k"]) -> Float[np.ndarray, "3 k q"]:
    """AP from the distractors ahead of each positive; the closest positive has the fewest."""
    levels = ahead.reshape(len(ahead), len(LEVELS), IMAGES, -1)
    return area_from_counts(np.sort(levels, axis=2).transpose(1, 3, 0, 2), n_positive=IMAGES)
