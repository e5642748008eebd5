"""Exact distances between descriptors, in blocks, on several cores."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from hpsearch.shapes import Float

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(
    work: Callable[[Item], Result], items: Sequence[Item], *, device: torch.device
) -> list[Result]:
    """Apply ``work`` to every item in order, on a CPU with torch's number of threads.

    One thread processes an item: for operations that fit into a core's cache, torch's own threads
    would wait for each other longer than they compute. Meanwhile torch is limited to one thread in
    the whole process; the former number is restored at the end.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1 or device.type != "cpu":
        return [work(item) for item in items]

    inference = torch.is_inference_mode_enabled()

    def single_threaded(item: Item) -> Result:
        with torch.inference_mode(inference):  # inference mode is off in a new thread
            return work(item)

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(single_threaded, items))
    finally:
        torch.set_num_threads(before)


Norm = Literal["l2", "l1"]

ROWS_PER_STEP = 4096
"""Pairs per step: small enough for the cache, large enough to amortize a call."""


def scipy_distance(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], *, norm: Norm
) -> Float[Tensor, " n"]:
    """Distance of row i to row i in float64, bit-identical to SciPy's ``cdist``.

    SciPy adds the dimensions sequentially; any other order could distinguish distances that are
    equal in SciPy, or the reverse.
    """
    difference = a.double() - b.double()
    terms = difference.square_() if norm == "l2" else difference.abs_()
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for column in terms.T.contiguous():
        total += column
    if norm == "l1":
        return total
    # torch's square root on a CPU (MKL) is sometimes one bit off the correctly rounded one
    return torch.from_numpy(np.sqrt(total.cpu().numpy())).to(total.device)


def indexed_distance(
    a: Float[Tensor, "n d"], rows: Tensor, b: Float[Tensor, "m d"], columns: Tensor, *, norm: Norm
) -> Float[Tensor, " p"]:
    """Distance of ``a[rows]`` to ``b[columns]`` by ``scipy_distance``, with bounded memory."""
    result = torch.empty(len(rows), dtype=torch.float64, device=a.device)
    for start in range(0, len(rows), ROWS_PER_STEP):
        step = slice(start, start + ROWS_PER_STEP)
        result[step] = scipy_distance(
            a.index_select(0, rows[step]), b.index_select(0, columns[step]), norm=norm
        )
    return result


def product_dtype(device: torch.device) -> torch.dtype:
    """Dtype in which matrix products keep the bound of ``CenteredCoordinates.tolerance``.

    float32 is faster, but is used only where torch cannot replace it by TF32 or bfloat16.
    """
    safe = device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if safe else torch.float64


@dataclass(frozen=True, eq=False, kw_only=True)
class CenteredCoordinates:
    """Coordinates with small rounding errors: centered, and scaled by a power of two.

    Centering makes the error proportional to the spread of the descriptors instead of their common
    offset. Integers stay integers, so that their products are exact and need no recomputation.
    """

    center: Float[Tensor, " d"]
    scale: float
    norm: Norm
    dtype: torch.dtype

    @classmethod
    def fit(
        cls, points: Float[Tensor, "n d"], *, norm: Norm, dtype: torch.dtype
    ) -> "CenteredCoordinates":
        """Fit the center and scale to these points."""
        # any center near the points suffices; float32, so that equal points become exact zeros
        some = points[:: max(len(points) // 256, 1)]
        center = some.mean(dim=0, dtype=torch.float64).float()
        if integral(points):
            return cls(center=center.round(), scale=1.0, norm=norm, dtype=dtype)
        exponent = math.frexp(float((points / 2 - center / 2).abs().max()))[1] + 1
        return cls(center=center, scale=2.0 ** min(-exponent, 100), norm=norm, dtype=dtype)

    def transform(self, points: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Centered and scaled coordinates of points."""
        # halved first, because the difference of two large float32 numbers may overflow
        halves = points.to(self.dtype) / 2 - self.center.to(self.dtype) / 2
        return halves * (2 * self.scale)

    def squared_norms(self, transformed: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """Squared L2 norm, or L1 norm, of transformed points."""
        return (transformed.square() if self.norm == "l2" else transformed.abs()).sum(dim=-1)

    def approximate(
        self,
        a: Float[Tensor, "n d"],
        b: Float[Tensor, "m d"],
        *,
        weight: Float[Tensor, " m"],
        out: Float[Tensor, "k m"],
    ) -> Float[Tensor, "n m"]:
        """Squared L2 distance minus the squared norm of row i; or the L1 distance.

        Both are monotonic in the distance along a row, which suffices for ranking.

        Args:
            a: transformed points of the rows.
            b: transformed points of the columns.
            squared_norms: squared norms of b's points.
            out: buffer of at least n rows; allocating it would cost a quarter of the product.
        """
        with torch.autocast(a.device.type, enabled=False):
            if self.norm == "l1":
                return torch.cdist(a, b, p=1.0)
            return torch.addmm(weight, a, b.T, alpha=-2, out=out[: len(a)])

    def tolerance(
        self,
        weight: Float[Tensor, " n"],
        largest: Float[Tensor, ""],
        *,
        dimension: int,
        exact: bool,
    ) -> Float[Tensor, " n"]:
        """Error bound of ``approximate`` by row; 0 if nothing is rounded.

        Args:
            squared_norms: squared norms of the rows.
            largest: largest squared norm of a column.
            exact: True if all transformed points are integers, which are exact unless too large.

        A sum of d products in precision u is off by at most d·u·Σ|aᵢbᵢ| ≤ d·u·|a||b| (Higham,
        Accuracy and Stability of Numerical Algorithms, §3.1), and 2|a||b| ≤ (|a|+|b|)²/2; the
        squared norm adds d·u·|b|², and eight more u (|a|+|b|)² cover the rounding of
        coordinates and of the final sum.
        """
        unit = torch.finfo(self.dtype).eps / 2
        squared = self.norm == "l2"
        reach = (weight.sqrt() + largest.sqrt()).square() if squared else weight + largest
        if exact and float(reach.max()) < 0.25 / unit:
            return torch.zeros_like(reach)
        share = 1.5 * dimension
        # the constant covers underflow in float32
        return (share + 8) * unit * reach + 1e-30


def integral(points: Float[Tensor, "n d"]) -> bool:
    """Return True if all coordinates are integers."""
    first = points[:1]
    return bool((first == first.round()).all() and (points == points.round()).all())
