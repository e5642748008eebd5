"""Preselection of nearest neighbors by matrix products with bounded errors.

A screen computes, for each row and column, a lower bound y of the squared (or L1) distance t, with
t ≤ y + 2ε(w + w'), where w and w' are squared norms of both sides. With j the column of a row's
smallest y, the nearest column has y ≤ yⱼ + 2ε(w + wⱼ): all such columns are candidates, and a far
outlier among the columns does not widen the bound of the others.
"""

import math
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.distances import CenteredCoordinates, Norm, product_dtype
from hpsearch.shapes import Bool, Float, Int, Num

Candidates = tuple[Int[Tensor, " c"], Int[Tensor, " c"]]
"""Row, within a step of rows, and column of each candidate, in this order."""

FindCandidates = Callable[[slice], Candidates]
"""Function from a step of rows to their candidates."""


class Scratch:
    """Memory of one view's matrix that the next view uses again: fresh pages cost a quarter."""

    def __init__(self) -> None:
        self.memory = torch.empty(0)

    def matrix(
        self, dtype: torch.dtype, rows: int, columns: int, *, device: torch.device
    ) -> Tensor:
        """Matrix with arbitrary entries; its memory is used again by the next call."""
        size = rows * columns
        if self.memory.dtype != dtype or len(self.memory) < size:
            self.memory = torch.empty(size, dtype=dtype, device=device)
        return self.memory[:size].view(rows, columns)


class ProductScreen:
    """Screen by products in the dtype of its coordinates."""

    def __init__(self, reference: Float[Tensor, "n d"], frame: CenteredCoordinates) -> None:
        self.frame, self.scratch = frame, Scratch()
        self.rows = frame.transform(reference)
        self.weight = frame.squared_norms(self.rows)
        self.item_size = self.rows.element_size()
        self.error = 0.0 if frame.exact else frame.relative_error(reference.shape[1])
        self.is_finest = frame.exact or frame.dtype == torch.float64

    def prepare(self, targets: Float[Tensor, "m d"], *, rows: int) -> FindCandidates:
        """Transform the columns, for steps of at most ``rows`` rows."""
        columns = self.frame.transform(targets)
        weight = self.frame.squared_norms(columns)
        lowered = weight * (1 - self.error)
        block = self.scratch.matrix(columns.dtype, rows, len(columns), device=columns.device)

        def candidates(step: slice) -> Candidates:
            bounds = self.frame.approximate(self.rows[step], columns, weight=lowered, out=block)
            if self.frame.norm == "l1":
                bounds -= self.error * weight
            column = _argmin(bounds)
            if not self.error:  # the first in case of ties
                return torch.arange(len(column), device=column.device), column
            least = bounds.gather(1, column[:, None])[:, 0].double()
            slack = 2 * self.error * (self.weight[step] + weight[column]).double()
            limit = (least + slack + self.frame.underflow(columns.shape[1])).to(bounds.dtype)
            # one ulp more, because the limit is rounded
            limit = torch.nextafter(limit, torch.full_like(limit, torch.inf))
            if bounds.device.type != "cpu":
                row, column = (bounds <= limit[:, None]).nonzero(as_tuple=True)
                return row, column
            return _at_most(bounds.numpy(), limit.numpy())

        return candidates


class HalfPrecisionScreen:
    """Screen by bfloat16 products with float32 sums, on a CPU that is fast at them; L2 only.

    The squared norms are additional coordinates, in two parts each. So entries are not negative,
    but for rounding, and are compared as integers, which is twice as fast.
    """

    item_size = torch.bfloat16.itemsize
    is_finest = False

    def __init__(self, reference: Float[Tensor, "n d"], frame: CenteredCoordinates) -> None:
        self.frame, self.scratch, self.marks = frame, Scratch(), Scratch()
        rows = frame.transform(reference)
        dimension = rows.shape[1]
        self.weight = frame.squared_norms(rows)
        self.left = rows.new_ones((len(rows), dimension + 4), dtype=torch.bfloat16)
        self.left[:, :dimension] = -2 * rows
        self.residual = _residual_share(-2 * rows, self.left[:, :dimension], 4 * self.weight)
        # the rest covers sums in float32, with a spare factor, and the split of squared norms
        self.rest = 2 * frame.relative_error(dimension + 4) + 2.0**-16

    def prepare(self, targets: Float[Tensor, "m d"], *, rows: int) -> FindCandidates:
        """Transform the columns, for steps of at most ``rows`` rows."""
        columns = self.frame.transform(targets)
        dimension = columns.shape[1]
        weight = self.frame.squared_norms(columns)
        right = columns.new_ones((len(columns), dimension + 4), dtype=torch.bfloat16)
        right[:, :dimension] = columns
        residual = _residual_share(columns, right[:, :dimension], weight)
        error = self.residual + residual + self.residual * residual + self.rest
        _split(weight * (1 - error), right[:, dimension : dimension + 2])
        _split(self.weight * (1 - error), self.left[:, dimension + 2 :])
        block = self.scratch.matrix(right.dtype, rows, len(right), device=right.device)
        near = self.marks.matrix(torch.bool, rows, len(right), device=right.device).numpy()
        spare = self.frame.underflow(dimension)

        def candidates(step: slice) -> Candidates:
            size = step.stop - step.start
            bounds = torch.mm(self.left[step], right.T, out=block[:size])
            entries = bounds.view(torch.int16).numpy()
            column = _argmin(entries)
            least = bounds.gather(1, column[:, None])[:, 0].float()
            if float(least.min()) <= 0:  # negative numbers are in another order as integers
                np.maximum(entries, 0, out=entries)
                column = _argmin(entries)
                least = bounds.gather(1, column[:, None])[:, 0].float()
            # the least entry is rounded by at most 2⁻⁸ of itself; rounding keeps the order
            slack = 2 * error * (self.weight[step] + weight[column]) + 2 * spare
            limit = (least * (1 + 2.0**-8) + slack) * (1 + 2.0**-20)
            return _at_most(entries, limit.bfloat16().view(torch.int16).numpy(), near=near[:size])

        return candidates


def fast_screen(
    views: Float[Tensor, "n 16 d"], reference: Float[Tensor, "n d"], *, norm: Norm
) -> ProductScreen | HalfPrecisionScreen:
    """Fastest screen for the views of a sequence on their device."""
    frame = CenteredCoordinates.fit(
        views.flatten(0, 1), norm=norm, dtype=product_dtype(views.device)
    )
    half = norm == "l2" and frame.dtype == torch.float32 and not frame.exact
    if half and half_precision_is_fast():
        return HalfPrecisionScreen(reference, frame)
    return ProductScreen(reference, frame)


@cache
def half_precision_is_fast() -> bool:
    """Return True if the CPU multiplies bfloat16 faster than float32, with sums in float32.

    It depends on the CPU and on torch's build, so it is measured; results do not depend on it.
    """
    rng = np.random.default_rng(0)
    left, right = (
        torch.from_numpy(rng.standard_normal((n, 128)).astype(np.float32)).bfloat16()
        for n in (128, 512)
    )
    half, full = torch.mm(left, right.T), torch.mm(left.float(), right.float().T)
    if not ((half.float() - full).abs() <= 2.0**-8 * full.abs() + 1e-3).all():
        return False
    return _seconds(left, right.T) < 0.8 * _seconds(left.float(), right.float().T)


def _seconds(left: Tensor, right: Tensor) -> float:
    out = torch.mm(left, right)
    times = []
    for _ in range(3):
        start = time.thread_time()
        torch.mm(left, right, out=out)
        times.append(time.thread_time() - start)
    return min(times)


def _residual_share(
    values: Float[Tensor, "n d"], rounded: Float[Tensor, "n d"], squared_norms: Float[Tensor, " n"]
) -> float:
    """Largest norm of what rounding changed, as a share of the row's norm; a little too large."""
    change = values.sub(rounded).square_().sum(dim=1)
    share = change / squared_norms.clamp_min(torch.finfo(torch.float32).tiny)
    return min(math.sqrt(float(share.max())) * 1.001, 2.0**-8)


def _split(values: Float[Tensor, " n"], parts: Float[Tensor, "n 2"]) -> None:
    """Write each value as the sum of two bfloat16 numbers."""
    parts[:, 0] = values
    parts[:, 1] = values - parts[:, 0].float()


def _argmin(values: Tensor | Num[np.ndarray, "n m"]) -> Int[Tensor, " n"]:
    """Column of the first least entry of each row; NumPy's is ten times faster on a CPU."""
    if isinstance(values, Tensor):
        if values.device.type != "cpu":
            return values.argmin(dim=1)
        values = values.numpy()
    return torch.from_numpy(values.argmin(axis=1))


def _at_most(
    values: Num[np.ndarray, "n m"],
    limit: Num[np.ndarray, " n"],
    *,
    near: Bool[np.ndarray, "n m"] | None = None,
) -> Candidates:
    """Row and column of every entry at or below its row's limit, in this order."""
    near = np.less_equal(values, limit[:, None], out=near)
    flat = torch.from_numpy(_true_positions(near.reshape(-1)))
    row = flat // values.shape[1]
    return row, flat - row * values.shape[1]


def _true_positions(marks: Bool[np.ndarray, " n"]) -> Int[np.ndarray, " c"]:
    """Positions of the few true entries; eight at a time, four times as fast as flatnonzero."""
    whole = len(marks) // 8 * 8
    words = np.flatnonzero(marks[:whole].view(np.uint64) != 0)
    place = np.flatnonzero(marks[:whole].reshape(-1, 8)[words])
    found = words[place >> 3] * 8 + (place & 7)
    return np.concatenate([found, whole + np.flatnonzero(marks[whole:])])
