"""Construction of initialized networks from settings."""

from typing import TypeVar

import torch
from torch import nn

from hpsearch import config
from hpsearch.models.denoisers import DnCNN, FrozenBackbone, ShallowUNet, UNet, load_weights
from hpsearch.models.descriptors import L2Net
from hpsearch.models.layers import he_normal_

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

    Weights are He-normal. Equal settings and seed give equal weights; torch's global random state
    is unchanged.

    Example:
        >>> network = build_descriptor(config.L2Net(width=0.125), seed=0).eval()
        >>> network(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 128])
    """
    with torch.random.fork_rng(devices=[]):
        match settings:
            case config.L2Net():
                return _initialized(L2Net(settings), seed)


def _build_dncnn(settings: config.DnCNN, seed: int) -> DnCNN:
    return _initialized(DnCNN(depth=settings.depth, channels=settings.channels), seed)


def _initialized(network: Network, seed: int) -> Network:
    he_normal_(network, generator=torch.Generator().manual_seed(seed))
    return network
