"""Pipeline: optional denoiser and descriptor as one network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch import config
from hpsearch.config.custom_import import build_object, own_code
from hpsearch.errors import UserError
from hpsearch.models.convnet import ConvNet
from hpsearch.models.denoisers import DnCNN, FrozenBackbone, ShallowUNet, UNet, load_weights
from hpsearch.models.descriptors import L2Net, l2_normalize
from hpsearch.models.layers import he_normal_, orthogonal_
from hpsearch.shapes import Float, Num, UInt8


class Compression(nn.Module):
    """Linear projection of unit descriptors, scaled to unit length again.

    Args:
        inputs: numbers in a descriptor.
        descriptor_dim: numbers in a compressed descriptor.
    """

    def __init__(self, inputs: int, descriptor_dim: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # weights are replaced later
            self.project = nn.Linear(inputs, descriptor_dim)

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n d"]:
        return l2_normalize(self.project(l2_normalize(x)))


class CustomDescriptor(nn.Module):
    """The user's own network, with descriptors of unit length if the settings ask for it."""

    def __init__(self, settings: config.CustomNetwork, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.settings = settings

    def forward(self, x: Float[Tensor, "b 1 32 32"]) -> Float[Tensor, "b d"]:
        if torch.compiler.is_compiling() or torch.compiler.is_exporting():
            y = self.network(x)
        else:
            with own_code(self.settings, "network"):
                y = self.network(x)
            self._check(x, y)
        return l2_normalize(y) if self.settings.unit_norm else y

    def _check(self, x: Tensor, y: object) -> None:
        dim = self.settings.descriptor_dim
        if isinstance(y, Tensor) and y.dim() == 2 and y.shape[1] == dim:
            return
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise UserError(
            f"network {self.settings.object} must turn patches {tuple(x.shape)} into descriptors "
            f"({x.shape[0]}, {dim}), not {got}; flatten the map at its end, and set descriptor_dim",
            code="custom-wrong-shape",
        )


class Pipeline(nn.Module):
    """Network from raw patches to descriptors: optional denoiser, descriptor, compression.

    Maps (N, 32, 32) gray levels 0..255, uint8 or float, to (N, d) float32. ``torch.export`` accepts
    it in evaluation mode with a dynamic batch; the exported program has its example's dtype.

    Denoised patches are clipped to 0..255 and not rounded. The coursework's loader truncates them
    to uint8, which darkens by half a gray level; rounding would make the descriptor discontinuous
    where the denoiser's output differs in the last bit between batch sizes and devices.

    Example:
        >>> from hpsearch import config
        >>> from hpsearch.models import build_descriptor
        >>> descriptor = build_descriptor(config.L2Net(width=0.125), seed=0)
        >>> pipeline = Pipeline(denoiser=None, descriptor=descriptor).eval()
        >>> pipeline(torch.zeros(2, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 128])
    """

    def __init__(
        self,
        *,
        denoiser: nn.Module | None,
        descriptor: nn.Module,
        compression: Compression | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.descriptor = descriptor
        self.compression = compression

    def forward(self, patches: Num[Tensor, "n 32 32"]) -> Float[Tensor, "n d"]:
        x = patches.to(torch.float32).unsqueeze(1)
        if self.denoiser is not None:
            x = self.denoiser(x).to(torch.float32).clamp(0, 255)
        y = self.descriptor(x).to(torch.float32)
        return y if self.compression is None else self.compression(y)


@torch.no_grad()
def describe(
    pipeline: nn.Module,
    patches: UInt8[np.ndarray, "n 32 32"],
    *,
    batch: int = 1024,
    device: torch.device | str = "cpu",
) -> Float[np.ndarray, "n d"]:
    """Descriptors of ``patches``, computed in evaluation mode; earlier modes are restored.

    Args:
        pipeline: network from (N, 32, 32) gray levels to (N, d), on ``device``.
        patches: gray levels; at least one.
        batch: patches per forward pass, at least 1.
        device: device of the pipeline.

    Returns:
        Descriptors (N, d), float32.

    Raises:
        ValueError: if ``patches`` is empty.
    """
    if not len(patches):
        raise ValueError("there are no patches to describe; give at least one")
    with _eval_mode(pipeline):
        return torch.cat(
            [pipeline(x).float().cpu() for x in _batches(patches, batch, device)]
        ).numpy()


@torch.no_grad()
def denoise(
    denoiser: nn.Module,
    patches: UInt8[np.ndarray, "n 32 32"],
    *,
    batch: int = 1024,
    device: torch.device | str = "cpu",
) -> UInt8[np.ndarray, "n 32 32"]:
    """Denoised patches, clipped to 0..255 and rounded to the nearest gray level for storage.

    Args:
        denoiser: network from (N, 1, 32, 32) to the same shape, on ``device``.
        patches: noisy gray levels; at least one.
        batch: patches per forward pass, at least 1.
        device: device of the denoiser.

    Raises:
        ValueError: if ``patches`` is empty.
    """
    if not len(patches):
        raise ValueError("there are no patches to denoise; give at least one")
    out = np.empty_like(patches)
    with _eval_mode(denoiser):
        start = 0
        for x in _batches(patches, batch, device):
            clean = denoiser(x.to(torch.float32).unsqueeze(1)).squeeze(1)
            stop = start + len(x)
            out[start:stop] = clean.float().round().clamp(0, 255).to(torch.uint8).cpu().numpy()
            start = stop
    return out


def _batches(
    patches: UInt8[np.ndarray, "n 32 32"], batch: int, device: torch.device | str
) -> Iterator[UInt8[Tensor, "b 32 32"]]:
    for start in range(0, len(patches), batch):
        # A copy: memory-mapped patches are read-only, and torch warns about those.
        yield torch.from_numpy(np.array(patches[start : start + batch])).to(device)


@contextmanager
def _eval_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterward each module's own mode is restored."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


Network = TypeVar("Network", bound=nn.Module)


def build_denoiser(settings: config.Denoiser, *, seed: int) -> nn.Module:
    """Build a denoiser from (B, 1, 32, 32) noisy to clean gray levels, in training mode.

    Weights are He-normal; networks that predict the noise start as the identity (last weights 0).
    Equal settings and seed give equal weights; torch's global random state is unchanged.

    Raises:
        UserError: if the weights of a frozen backbone cannot be read.
    """
    with torch.random.fork_rng(devices=[]):  # torch initializes every layer first
        match settings:
            case config.ShallowUNet(width=width):
                return _initialized(ShallowUNet(width), seed)
            case config.UNet(levels=levels, channels=channels, convolutions=count):
                network = UNet(levels=levels, channels=channels, convolutions=count)
                return _initialized(network, seed)
            case config.DnCNN():
                return _build_dncnn(settings, seed).zero_init_output_()
            case config.DnCNNTransfer(front=shape, weights=path, sha256=sha256, head=head):
                front = _build_dncnn(shape, seed)
                load_weights(front, path, sha256=sha256)
                return FrozenBackbone(
                    front=front, head=_build_dncnn(head, seed).zero_init_output_()
                )


def build_descriptor(settings: config.Descriptor, *, seed: int) -> nn.Module:
    """Build a descriptor from (B, 1, 32, 32) gray levels to (B, d), in training mode.

    Weights are He-normal, or orthogonal where the settings ask for it; the user's own network sets
    its weights itself. Equal settings and seed give equal weights; torch's global random state is
    unchanged.

    Example:
        >>> network = build_descriptor(config.L2Net(width=0.125), seed=0).eval()
        >>> network(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 128])
    """
    with torch.random.fork_rng(devices=[]):
        match settings:
            case config.L2Net():
                return _initialized(L2Net(settings), seed)
            case config.ConvNet(init=config.Orthogonal(gain=gain)):
                network = ConvNet(settings)
                orthogonal_(network, gain=gain, generator=torch.Generator().manual_seed(seed))
                return network
            case config.ConvNet():
                return _initialized(ConvNet(settings), seed)
            case config.CustomNetwork():
                torch.manual_seed(seed)
                return _build_own(settings)


def _build_own(settings: config.CustomNetwork) -> CustomDescriptor:
    network = build_object(settings, role="network")
    if not isinstance(network, nn.Module):
        raise UserError(
            f"network {settings.object} is not a torch.nn.Module; derive it from that class",
            code="custom-wrong-type",
        )
    return CustomDescriptor(settings, network)


def _build_dncnn(settings: config.DnCNN, seed: int) -> DnCNN:
    return _initialized(DnCNN(depth=settings.depth, channels=settings.channels), seed)


def _initialized(network: Network, seed: int) -> Network:
    he_normal_(network, generator=torch.Generator().manual_seed(seed))
    return network
