"""Table of the descriptors of a set of sequences on one device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hpsearch.errors import UserError
from hpsearch.patch_views import VIEW_NAMES
from hpsearch.shapes import Float, Num


@dataclass(frozen=True, eq=False, kw_only=True)
class DescriptorTable:
    """Descriptors in float32; point p of sequence s is row ``starts[s] + p``."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    table: Float[Tensor, "n 16 d"]

    @property
    def starts(self) -> np.ndarray:
        """Index of the first row of each sequence."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]])

    def sequence(self, index: int) -> Float[Tensor, "n 16 d"]:
        """Descriptors of one sequence (a view of the table)."""
        start = int(self.starts[index])
        return self.table[start : start + self.counts[index]]

    @classmethod
    def from_arrays(
        cls,
        descriptors: Mapping[str, Num[np.ndarray | Tensor, "n 16 d"]]
        | Sequence[Num[np.ndarray | Tensor, "n 16 d"]],
        *,
        names: Sequence[str],
        device: str | torch.device,
    ) -> "DescriptorTable":
        """Copy descriptor arrays into a table and check them.

        Raises:
            UserError: naming sequence, row and view of invalid descriptors.
        """
        given = _in_order(descriptors, names)
        dimension = given[0].shape[-1] if given[0].ndim == 3 else 0
        for name, array in zip(names, given, strict=True):
            _check_shape(name, array, dimension=dimension)
        counts = tuple(len(array) for array in given)
        # NumPy requests huge pages, which makes random reads of rows a tenth faster
        empty = np.empty((sum(counts), len(VIEW_NAMES), dimension), np.float32)
        table = torch.from_numpy(empty).to(device)
        start = 0
        for name, array in zip(names, given, strict=True):
            rows = table[start : start + len(array)]
            _copy_rows(rows, array)
            _check_finite(name, rows)
            start += len(array)
        return cls(names=tuple(names), counts=counts, table=table)


def _copy_rows(rows: Float[Tensor, "n 16 d"], array: Num[np.ndarray | Tensor, "n 16 d"]) -> None:
    """Copy an array into float32 rows in one pass."""
    if isinstance(array, Tensor):
        rows.copy_(array.detach())
        return
    # overflow becomes infinity, which is rejected afterward
    with np.errstate(over="ignore"):
        if rows.device.type == "cpu":
            np.copyto(rows.numpy(), array, casting="unsafe")
        else:
            rows.copy_(torch.from_numpy(np.array(array, np.float32)))


def _in_order(
    descriptors: Mapping[str, np.ndarray | Tensor] | Sequence[np.ndarray | Tensor],
    names: Sequence[str],
) -> list[np.ndarray | Tensor]:
    if not isinstance(descriptors, Mapping):
        if len(descriptors) != len(names):
            raise UserError(f"{len(descriptors)} descriptor arrays for {len(names)} sequences")
        return list(descriptors)
    missing = [name for name in names if name not in descriptors]
    if missing:
        raise UserError(f"descriptors of sequence {missing[0]} are missing ({len(missing)} in all)")
    return [descriptors[name] for name in names]


def _check_shape(name: str, array: np.ndarray | Tensor, *, dimension: int) -> None:
    if array.ndim != 3 or array.shape[1] != len(VIEW_NAMES) or not len(array):
        raise UserError(
            f"{name}: descriptors must be (points, {len(VIEW_NAMES)} views, dimension) with at "
            f"least one point, got {tuple(array.shape)}: are views missing?"
        )
    if array.shape[2] != dimension or not dimension:
        raise UserError(
            f"{name}: descriptors have dimension {array.shape[2]}, but those of the first sequence "
            f"{dimension}"
        )


def _check_finite(name: str, rows: Float[Tensor, "n 16 d"]) -> None:
    # one reduction instead of a mask: a sum is finite only if every value is (or it overflows)
    if torch.isfinite(rows.sum()):
        return
    wrong = (~torch.isfinite(rows)).any(dim=2).nonzero()
    if len(wrong):
        row, view = wrong[0].tolist()
        raise UserError(
            f"{name}, row {row} (0-based) of view {VIEW_NAMES[view]}: the descriptor contains "
            "NaN or infinity in float32"
        )
