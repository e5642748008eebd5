"""Exact Euclidean distances, block by block, on several cores."""

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
    """``work`` on every item, in order, in as many threads as torch may use on a CPU.

    Each item is worked on by one thread: operations small enough for a core's cache would spend
    longer waiting for the other core, as torch's own threads do, than they last. Meanwhile torch
    is told to use one thread, which holds for the whole process and is undone at the end.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1 or device.type != "cpu":
        return [work(item) for item in items]

    inference = torch.is_inference_mode_enabled()

    def single_threaded(item: Item) -> Result:
        with torch.inference_mode(inference):  # a thread begins with the mode off
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
"""Pairs a step: small enough for the cache, large enough to hide the cost of a call."""


def scipy_distance(
    a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], *, norm: Norm
) -> Float[Tensor, " n"]:
    """Distance of row i to row i in float64, to the last bit that of ``scipy``'s ``cdist``.

    SciPy adds the dimensions one after the other; any other order could tell apart distances that
    SciPy finds equal, or the reverse.
    """
    difference = a.double() - b.double()
    terms = difference.square_() if norm == "l2" else difference.abs_()
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for column in terms.T.contiguous():
        total += column
    if norm == "l1":
        return total
    # torch's own root on a CPU (MKL) is now and then one bit off the correctly rounded one
    return torch.from_numpy(np.sqrt(total.cpu().numpy())).to(total.device)


def indexed_distance(
    a: Float[Tensor, "n d"], rows: Tensor, b: Float[Tensor, "m d"], columns: Tensor, *, norm: Norm
) -> Float[Tensor, " p"]:
    """``scipy_distance`` of ``a[rows]`` to ``b[columns]`` in steps of bounded memory."""
    result = torch.empty(len(rows), dtype=torch.float64, device=a.device)
    for start in range(0, len(rows), ROWS_PER_STEP):
        step = slice(start, start + ROWS_PER_STEP)
        result[step] = scipy_distance(
            a.index_select(0, rows[step]), b.index_select(0, columns[step]), norm=norm
        )
    return result


def product_dtype(device: torch.device) -> torch.dtype:
    """Type in which matrix products have the error that ``Frame.tolerance`` states.

    float32 is faster, but only where it may not be cut to TF32 or bfloat16 behind our back.
    """
    safe = device.type == "cpu" and torch.get_float32_matmul_precision() == "highest"
    return torch.float32 if safe else torch.float64


@dataclass(frozen=True, eq=False, kw_only=True)
class CenteredCoordinates:
    """Coordinates in which rounding does least harm: centered, and scaled by a power of two.

    Centering makes the error follow the spread of the descriptors instead of their common offset.
    Integers stay integers, so that their products are exact and need no second look.
    """

    center: Float[Tensor, " d"]
    scale: float
    norm: Norm
    dtype: torch.dtype

    @classmethod
    def fit(
        cls, points: Float[Tensor, "n d"], *, norm: Norm, dtype: torch.dtype
    ) -> "CenteredCoordinates":
        """The frame of these points; others may be placed in it too."""
        # any center near the points will do; float32, so that equal ones come out as exact zeros
        some = points[:: max(len(points) // 256, 1)]
        center = some.mean(dim=0, dtype=torch.float64).float()
        if integral(points):
            return cls(center=center.round(), scale=1.0, norm=norm, dtype=dtype)
        exponent = math.frexp(float((points / 2 - center / 2).abs().max()))[1] + 1
        return cls(center=center, scale=2.0 ** min(-exponent, 100), norm=norm, dtype=dtype)

    def transform(self, points: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Coordinates of points in this frame."""
        # halved first, because the difference of two large float32 may overflow
        halves = points.to(self.dtype) / 2 - self.center.to(self.dtype) / 2
        return halves * (2 * self.scale)

    def squared_norms(self, transformed: Float[Tensor, "... d"]) -> Float[Tensor, "..."]:
        """Squared L2 norm (or L1 norm) of placed points."""
        return (transformed.square() if self.norm == "l2" else transformed.abs()).sum(dim=-1)

    def approximate(
        self,
        a: Float[Tensor, "n d"],
        b: Float[Tensor, "m d"],
        *,
        weight: Float[Tensor, " m"],
        out: Float[Tensor, "k m"],
    ) -> Float[Tensor, "n m"]:
        """Squared L2 distance less the weight of row i; or the L1 distance.

        Along a row both rise with the distance, which is all that ranking needs.

        Args:
            squared_norms: of b's points.
            out: at least n rows to write to; memory fresh from the system would cost a quarter of
                the product.
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
        """How far ``approximate`` may lie from the truth, by row; 0 where nothing is rounded.

        Args:
            squared_norms: of the rows.
            largest: weight of a column.
            exact: whether all placed points are integers; they are exact unless too large.

        A sum of d products in precision u is off by at most d·u·Σ|aᵢbᵢ| ≤ d·u·|a||b| (Higham,
        Accuracy and Stability of Numerical Algorithms, §3.1), and 2|a||b| ≤ (|a|+|b|)²/2; the
        weight adds d·u·|b|², and eight more u (|a|+|b|)² cover the rounding of coordinates and of
        the final sum.
        """
        unit = torch.finfo(self.dtype).eps / 2
        squared = self.norm == "l2"
        reach = (weight.sqrt() + largest.sqrt()).square() if squared else weight + largest
        if exact and float(reach.max()) < 0.25 / unit:
            return torch.zeros_like(reach)
        share = 1.5 * dimension
        # the constant covers products too small for float32
        return (share + 8) * unit * reach + 1e-30


def integral(points: Float[Tensor, "n d"]) -> bool:
    """Whether all coordinates are whole numbers."""
    first = points[:1]
    return bool((first == first.round()).all() and (points == points.round()).all())
