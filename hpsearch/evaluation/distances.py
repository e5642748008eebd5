"""Exact distances between descriptors, in blocks, on several cores."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from hpsearch.shapes import Float, Int

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

CPU_ROWS_PER_STEP = 512
"""Pairs per step on a CPU, so that their float64 differences stay in a core's cache."""


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
    if a.device.type == "cpu":
        found = _numpy_distance(*(part.numpy() for part in (a, rows, b, columns)), norm=norm)
        return torch.from_numpy(found)
    result = torch.empty(len(rows), dtype=torch.float64, device=a.device)
    for start in range(0, len(rows), ROWS_PER_STEP):
        step = slice(start, start + ROWS_PER_STEP)
        result[step] = scipy_distance(
            a.index_select(0, rows[step]), b.index_select(0, columns[step]), norm=norm
        )
    return result


def _numpy_distance(
    a: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " p"],
    b: Float[np.ndarray, "m d"],
    columns: Int[np.ndarray, " p"],
    *,
    norm: Norm,
) -> Float[np.ndarray, " p"]:
    """Distances as in ``indexed_distance``; torch adds up a row faster than NumPy."""
    result = np.empty(len(rows))
    for start in range(0, len(rows), CPU_ROWS_PER_STEP):
        step = slice(start, start + CPU_ROWS_PER_STEP)
        terms = torch.from_numpy(a[rows[step]]).double()
        terms.sub_(torch.from_numpy(b[columns[step]]))
        (terms.square_ if norm == "l2" else terms.abs_)()
        # a running sum adds one dimension after another, as SciPy does
        result[step] = torch.cumsum(terms, dim=1, out=terms)[:, -1].numpy()
    return np.sqrt(result, out=result) if norm == "l2" else result


def product_dtype(device: torch.device) -> torch.dtype:
    """Dtype in which matrix products keep the bound of ``CenteredCoordinates.tolerance``.

    float32 is faster, but is used only where torch cannot replace it by TF32 or bfloat16.
    """
    safe = device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if safe else torch.float64


MAX_COORDINATE = 2.0**58
"""Largest coordinate after scaling in float32: squares and their sums stay below overflow."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CenteredCoordinates:
    """Coordinates with small rounding errors: centered, and scaled by a power of two.

    Centering makes the error proportional to the spread of the descriptors instead of their common
    offset. The center is a median, which single outliers do not move. Small integers stay
    integers, so that their products are exact and need no recomputation.
    """

    center: Float[Tensor, " d"]
    scale: float
    norm: Norm
    dtype: torch.dtype
    exact: bool
    """True if products of the points of the fit are exact: integers whose sums stay small."""

    @classmethod
    def fit(
        cls, points: Float[Tensor, "n d"], *, norm: Norm, dtype: torch.dtype
    ) -> "CenteredCoordinates":
        """Fit the center and scale to these points."""
        # any center near the points suffices; one of their values, so that integers stay integers
        some = points[:: max(len(points) // 256, 1)]
        center = some.median(dim=0).values
        plain = cls(center=center, scale=1.0, norm=norm, dtype=dtype, exact=False)
        if integral(points):
            largest = plain.squared_norms(plain.transform(points)).max()
            if plain.sums_are_exact(largest):
                return replace(plain, exact=True)
        return (
            plain if dtype == torch.float64 else replace(plain, scale=_scale(points, some, center))
        )

    def transform(self, points: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Centered and scaled coordinates of points."""
        if self.scale < 1:
            # halved first, because the difference of two large float32 numbers may overflow
            return (points / 2 - self.center / 2) * (2 * self.scale)
        centered = points.to(self.dtype) - self.center.to(self.dtype)
        return centered if self.scale == 1 else centered * self.scale

    def squared_norms(self, transformed: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """Squared L2 norm, or L1 norm, of transformed points."""
        if self.norm == "l1":
            return transformed.abs().sum(dim=-1)
        return transformed.square().sum(dim=-1)

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
            weight: squared norms of b's points.
            out: buffer of at least n rows; allocating it would cost a quarter of the product.
        """
        with torch.autocast(a.device.type, enabled=False):
            if self.norm == "l1":
                return torch.cdist(a, b, p=1.0)
            return torch.addmm(weight, a, b.T, alpha=-2, out=out[: len(a)])

    def relative_error(self, dimension: int) -> float:
        """Error bound of ``approximate``, as a share of the sum of both squared norms.

        A sum of d products in precision u is off by at most d·u·Σ|aᵢbᵢ| ≤ d·u·|a||b| (Higham,
        Accuracy and Stability of Numerical Algorithms, §3.1), and 2|a||b| ≤ |a|² + |b|². The
        squared norms add d·u·|a|² and d·u·|b|², adding them up twice that, and the rest covers the
        rounding of coordinates.
        """
        return (3 * dimension + 40) * torch.finfo(self.dtype).eps / 2

    def underflow(self, dimension: int) -> float:
        """Error bound of sums of products that are too small for the dtype."""
        return 16 * dimension * torch.finfo(self.dtype).tiny

    def sums_are_exact(self, largest: Tensor) -> bool:
        """Return True if sums for integer points up to this squared norm are exact.

        Squared distances are at most four times the squared norm, and every integer below 1/u is
        represented; a factor of four is spare. Infinity and NaN are not exact.
        """
        return float(largest) < torch.finfo(self.dtype).eps ** -1 / 8

    def tolerance(
        self,
        weight: Float[Tensor, " n"],
        largest: Float[Tensor, " n"],
        *,
        dimension: int,
        exact: bool,
    ) -> Float[Tensor, " n"]:
        """Error bound of ``approximate`` by row; 0 if nothing is rounded.

        Args:
            weight: squared norms of the rows.
            largest: largest squared norm of a column, or of those that matter to a row.
            dimension: number of coordinates.
            exact: True if all transformed points are integers, which are exact unless too large.
        """
        reach = torch.maximum(weight, largest)
        if exact and self.sums_are_exact(reach.max()):
            return torch.zeros_like(reach)
        share = self.relative_error(dimension)
        return share * (weight + largest) + self.underflow(dimension)


def integral(points: Float[Tensor, "n d"]) -> bool:
    """Return True if all coordinates are integers."""
    first = points[:1]
    return bool((first == first.round()).all() and (points == points.round()).all())


def _scale(
    points: Float[Tensor, "n d"], some: Float[Tensor, "k d"], center: Float[Tensor, " d"]
) -> float:
    """Power of two that keeps float32 products within range; 1 for all but extreme numbers.

    Args:
        points: all points.
        some: a sample of them.
        center: center of the coordinates.
    """
    low, high = torch.aminmax(points)
    spread = float((some / 2 - center / 2).abs().max())
    if max(-float(low), float(high)) < MAX_COORDINATE / 2 and spread > 2.0**-40:
        return 1.0
    largest = float((points / 2 - center / 2).abs().max())
    exponent = math.frexp(largest)[1] + 1
    return min(2.0 ** min(-exponent, 100) * MAX_COORDINATE, 2.0**100)
