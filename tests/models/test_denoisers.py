import pytest
import torch
from torch.nn import functional

from hpsearch import config
from hpsearch.models import build_denoiser
from hpsearch.models.denoisers import GREY


def trainable(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def test_shallow_unet_has_the_baseline_parameter_count():
    assert trainable(build_denoiser(config.ShallowUNet(), seed=0)) == 59_777


@pytest.mark.parametrize("width", [0.1, 0.5, 2.0])
def test_shallow_unet_keeps_the_shape_at_every_width(width):
    network = build_denoiser(config.ShallowUNet(width=width), seed=0)
    assert network(torch.rand(3, 1, 32, 32) * 255).shape == (3, 1, 32, 32)


def test_shallow_unet_pads_the_even_kernel_below_and_to_the_right():
    network = build_denoiser(config.ShallowUNet(), seed=0).double()
    x = torch.rand(2, 1, 32, 32, dtype=torch.float64) * 255
    skip = network.first(x / GREY).relu()
    high = functional.interpolate(
        network.down(functional.max_pool2d(skip, 2)).relu(), scale_factor=2
    )
    # A 3×3 kernel whose first row and column are 0 reads the same pixels with symmetric padding.
    kernel = functional.pad(network.up.weight, (1, 0, 1, 0))
    high = functional.conv2d(high, kernel, network.up.bias, padding=1).relu()
    expected = network.last(network.merge(torch.cat([skip, high], 1)).relu()) * GREY
    torch.testing.assert_close(network(x), expected)


def test_shallow_unet_without_biases_does_not_depend_on_the_grey_scale():
    network = build_denoiser(config.ShallowUNet(), seed=0).double()
    x = torch.rand(2, 1, 32, 32, dtype=torch.float64) * 255
    torch.testing.assert_close(network(x / 100) * 100, network(x))
