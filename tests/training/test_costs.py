"""Costs of a descriptor, against numbers written out and a count by hand."""

import torch
from torch import nn

from hpsearch.config import Compression, L2Net, TrialConfig
from hpsearch.models import Pipeline, build_descriptor
from hpsearch.training.costs import COST_METRICS, measure_costs

CPU = torch.device("cpu")


class Small(nn.Module):
    """A convolution with a known number of operations, and a batch norm whose mode shows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).mean(dim=(2, 3))


def test_costs_of_a_known_network_and_it_stays_as_it_was() -> None:
    network = Small().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    found = measure_costs(
        Pipeline(denoiser=None, descriptor=network), TrialConfig(), COST_METRICS, CPU
    )
    assert found.pop("cost/us_per_patch") > 0
    assert found == {
        "cost/parameters": 4 * 9 + 2 * 4,
        "cost/flops": 2 * 4 * 9 * 32 * 32,
        "cost/descriptor_bytes": 4 * 4,
    }
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_a_compressed_descriptor_is_as_long_as_its_compression() -> None:
    config = TrialConfig(
        descriptor=L2Net(width=0.125), compression=Compression(descriptor_dim=24, patches=200)
    )
    network = build_descriptor(config.descriptor, seed=0)
    wanted = ("cost/descriptor_bytes",)
    pipeline = Pipeline(denoiser=None, descriptor=network)
    assert measure_costs(pipeline, config, wanted, CPU) == {"cost/descriptor_bytes": 96.0}
    assert not measure_costs(pipeline, config, (), CPU)
