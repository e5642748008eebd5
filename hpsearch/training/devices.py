"""Where tensors live; chosen once, at the edge."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hpsearch.errors import UserError
from hpsearch.shapes import Float

Gather = Callable[[np.ndarray], Float[Tensor, "n 1 32 32"]]
"""Row numbers in, patches in grey levels 0…255 on the device out."""


class Indexable(Protocol):
    """Patches (n, 32, 32) of uint8, indexed by row numbers: an array, or rows of a mapped store."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...

    def __array__(self) -> np.ndarray: ...


def choose_device(name: str = "auto") -> torch.device:
    """A device by name: ``auto`` takes CUDA where there is one.

    Raises:
        UserError: if the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise UserError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is visible to torch; use --device cpu")
    return torch.device(name)


def resident(patches: Indexable, device: torch.device) -> Gather:
    """Keep patches where they are used: mapped in memory for the CPU, copied once elsewhere."""
    if device.type == "cpu":
        return lambda rows: torch.from_numpy(patches[rows]).unsqueeze(1).float()
    stored = torch.from_numpy(np.array(patches)).to(device)
    return lambda rows: stored[torch.from_numpy(rows).to(device)].unsqueeze(1).float()
