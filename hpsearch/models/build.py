"""From a setting to an initialised network."""

import torch
from torch import nn

from hpsearch import config
from hpsearch.models.denoisers import ShallowUNet
from hpsearch.models.descriptors import L2Net
from hpsearch.models.layers import he_normal_


def build_denoiser(settings: config.Denoiser, *, seed: int) -> nn.Module:
    """A network from (B, 1, 32, 32) noisy to clean grey levels, He-normal, in training mode.

    Equal settings and seed give equal weights; torch's global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):  # torch initialises every layer before we do
        match settings:
            case config.ShallowUNet(width=width):
                network = ShallowUNet(width)
    return _initialised(network, seed)


def build_descriptor(settings: config.Descriptor, *, seed: int) -> nn.Module:
    """A network from (B, 1, 32, 32) grey levels to (B, 128), He-normal, in training mode.

    Equal settings and seed give equal weights; torch's global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        match settings:
            case config.L2Net():
                network = L2Net(**settings.model_dump(exclude={"kind"}))
    return _initialised(network, seed)


def _initialised(network: nn.Module, seed: int) -> nn.Module:
    he_normal_(network, generator=torch.Generator().manual_seed(seed))
    return network
