"""Retrieval: are the other views of a patch found among distractors?"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.average_precision import area_from_counts
from hpsearch.evaluation.descriptors import Bank
from hpsearch.evaluation.distances import Frame, Norm, indexed_distance
from hpsearch.evaluation.scores import POOLS, RetrievalScores
from hpsearch.evaluation.tasks import Tasks
from hpsearch.evaluation.views import IMAGES, LEVELS, VIEW_NAMES
from hpsearch.shapes import Float, Int

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
    distractors = bank.table[_rows(bank, tasks.distractors), 0]
    frame = Frame.around(distractors, norm=norm, dtype=torch.float64)
    for sequence in np.unique(tasks.queries[:, 0]):
        own = np.flatnonzero(tasks.queries[:, 0] == sequence)
        others = torch.from_numpy(tasks.distractors[:, 0] != sequence).to(distractors.device)
        group = Group(frame, bank.table[_rows(bank, tasks.queries[own])], distractors[others])
        closer, as_close = group.counts(memory=memory)
        ap[:, :, own] = _ap(closer)
        neutral[:, own] = _ap((closer + as_close)[..., -1:] / 2)[:, 0]
    return RetrievalScores(
        ap=ap, tie_neutral_ap=neutral, sequence=tasks.queries[:, 0].astype(np.int64)
    )


class Group:
    """Queries of one sequence and the distractors of all others.

    Products are float64 here: with thousands of distractors many lie within float32's error of a
    positive, and looking at those again would cost more than it saves.
    """

    def __init__(
        self, frame: Frame, views: Float[Tensor, "q 16 d"], distractors: Float[Tensor, "m d"]
    ) -> None:
        self.frame = frame
        self.views = views
        self.distractors = distractors
        self.placed = frame.place(distractors)
        self.weight = frame.weight(self.placed)
        self.ends = [min(max(pool - IMAGES, 0), len(distractors)) for pool in POOLS]

    def counts(self, *, memory: int) -> tuple[Int[np.ndarray, "q 15 7"], Int[np.ndarray, "q 15 7"]]:
        """Distractors closer than each positive, and closer or as close, in each pool."""
        rows = max(memory // (self.weight.nbytes * 2 + 1), 1)
        parts = [self._counts_of(part, memory=memory) for part in self.views.split(rows)]
        closer, as_close = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        return closer, as_close

    def _counts_of(
        self, views: Float[Tensor, "q 16 d"], *, memory: int
    ) -> tuple[Int[Tensor, "q 15 7"], Int[Tensor, "q 15 7"]]:
        placed = self.frame.place(views)
        query, weight = placed[:, 0], self.frame.weight(placed)
        threshold = self._threshold(placed, weight)
        largest = torch.cat([weight.flatten(), self.weight]).max()
        slack = 2 * self.frame.tolerance(weight[:, 0], largest, dimension=views.shape[2])[:, None]
        block = self.frame.approximate(query, self.placed, weight=self.weight)
        low, high = threshold - slack, threshold + slack
        closer, as_close = self._between(block, low, high)
        unsure = (closer[..., -1] != as_close[..., -1]) & (slack > 0)
        for pairs in unsure.nonzero().split(max(memory // (self.weight.nbytes * 2 + 1), 1)):
            row, view = pairs.unbind(1)
            near = (block[row] >= low[row, view, None]) & (block[row] <= high[row, view, None])
            sure = closer[row, view]
            below, equal = self._look_again(views[row], view, near)
            closer[row, view] = sure + below
            as_close[row, view] = sure + below + equal
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
        below, upto, start = [], [], 0
        for end in self.ends:
            piece = sort_rows(block[:, start:end])
            below.append(torch.searchsorted(piece, low))
            upto.append(torch.searchsorted(piece, high, right=True))
            start = end
        return torch.stack(below, 2).cumsum(2), torch.stack(upto, 2).cumsum(2)

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
        distance = indexed_distance(
            views[:, 0], row, self.distractors, column, norm=self.frame.norm
        )
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
    result = values.contiguous() if not values.is_contiguous() else values.clone()
    parts = np.array_split(result.numpy(), max(min(torch.get_num_threads(), len(values)), 1))
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda part: part.sort(axis=1), parts))
    return result


def _rows(bank: Bank, points: Int[np.ndarray, "n 2"]) -> Tensor:
    rows = bank.starts[points[:, 0]] + points[:, 1]
    return torch.from_numpy(rows).to(bank.table.device)


def _ap(ahead: Float[np.ndarray, "q 15 k"]) -> Float[np.ndarray, "3 k q"]:
    """AP from the distractors ahead of each positive; the closest positive has the fewest."""
    levels = ahead.reshape(len(ahead), len(LEVELS), IMAGES, -1)
    return area_from_counts(np.sort(levels, axis=2).transpose(1, 3, 0, 2), n_positive=IMAGES)
