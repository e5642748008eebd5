"""Denoisers that predict the noise and subtract it."""

import hashlib
import io
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from hpsearch.errors import UserError
from hpsearch.models.denoisers import GREY
from hpsearch.shapes import Float

DAMAGED = (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, AttributeError)
"""What reading a file that is no state dict, or one of another network, can raise."""


class DnCNN(nn.Module):
    """A chain of 3×3 convolutions whose output is subtracted from its input.

    Grey levels in, grey levels out (not clipped), computed on grey / 255 as in published weights.
    The first convolution has biases and no batch normalisation, the last has neither, those
    between have batch normalisation instead of biases: 556,096 parameters at depth 17.

    Args:
        depth: convolutions, at least 3.
        channels: feature maps between them.

    Source: Zhang et al., IEEE TIP 2017; layer by layer as in cszn/DnCNN, epsilon included. Its
    momentum of 0.95 (0.05 of the past kept) is not taken over: statistics of one batch are noise.
    """

    def __init__(self, *, depth: int, channels: int) -> None:
        super().__init__()
        middle: list[nn.Module] = []
        for _ in range(depth - 2):
            middle.append(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
            middle += [nn.BatchNorm2d(channels, eps=1e-4), nn.ReLU()]
        first = nn.Conv2d(1, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 1, 3, padding=1, bias=False)
        self.body = nn.Sequential(first, nn.ReLU(), *middle)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        return x - GREY * self.last(self.body(x / GREY))

    @torch.no_grad()
    def predict_nothing_(self) -> "DnCNN":
        """Let the network start as the identity: the last weights are 0."""
        self.last.weight.zero_()
        return self


class FrozenFront(nn.Module):
    """A trained network whose weights and statistics stay, then one that is trained.

    The front stays in evaluation mode whatever mode is set, or its batch normalisation would
    drift.
    """

    def __init__(self, *, front: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.front = front.requires_grad_(False).eval()
        self.head = head

    def train(self, mode: bool = True) -> "FrozenFront":
        """Set the mode of the head alone."""
        super().train(mode)
        self.front.eval()
        return self

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        return self.head(self.front(x))


def load_weights(network: nn.Module, path: str, *, sha256: str | None = None) -> None:
    """Read a state dict that ``torch.save`` wrote into ``network``; nothing is executed.

    Raises:
        UserError: if the file is missing, damaged, another one, or for another network.
    """
    try:
        stored = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"the weights {path!r} cannot be read ({error.strerror}); give a file that every "
            "worker sees"
        ) from error
    found = hashlib.sha256(stored).hexdigest()
    if sha256 not in (None, found):
        raise UserError(f"the weights {path!r} have SHA-256 {found}, not {sha256}; mend either")
    try:
        network.load_state_dict(torch.load(io.BytesIO(stored), "cpu", weights_only=True))
    except DAMAGED as error:
        raise UserError(
            f"the weights {path!r} are not a state dict of {network.__class__.__name__} in the "
            "shape that the settings say; save one with torch.save, or mend depth and channels"
        ) from error
