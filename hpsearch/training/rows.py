"""Patches of a store by local row, read from the map only when asked for."""

from dataclasses import dataclass

import numpy as np

from hpsearch.data.store import Patches
from hpsearch.shapes import Int, UInt8


@dataclass(frozen=True)
class Rows:
    """Looks like a (rows, 32, 32) array of uint8 to whoever indexes it by row numbers."""

    patches: Patches
    noisy: bool

    def __getitem__(self, rows: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 32 32"]:
        return self.patches.gather(rows, noisy=self.noisy)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self.patches.all(noisy=self.noisy).reshape(-1, 32, 32)
