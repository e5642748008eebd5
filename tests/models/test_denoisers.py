import pytest
import torch
from torch.nn import functional

from hpsearch import config
from hpsearch.models import build_denoiser
from hpsearch.models.denoisers import MAX_GRAY, UNet


def trainable(network):
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        (config.UNet(), 3_787_713),
        (config.UNet(channels=32), 947_681),
        (config.UNet(levels=2), 903_105),
        (config.UNet(levels=4), 15_324_097),
        (config.UNet(levels=4, channels=59), 13_023_602),
        (config.UNet(convolutions=2), 7_696_705),
    ],
)
def test_unet_has_the_parameter_counts_of_its_docstring(settings, count):
    with torch.device("meta"):
        network = UNet(**settings.model_dump(exclude={"kind"}))
    assert trainable(network) == count


@pytest.mark.parametrize("levels", [1, 3, 5])
@pytest.mark.parametrize("convolutions", [1, 2])
def test_unet_keeps_the_shape_at_every_depth(levels, convolutions):
    settings = config.UNet(levels=levels, channels=2, convolutions=convolutions)
    y = build_denoiser(settings, seed=0)(torch.rand(3, 1, 32, 32) * 255)
    assert y.shape == (3, 1, 32, 32)


def test_unet_of_one_level_equals_its_layers_written_out():
    network = build_denoiser(config.UNet(levels=1, channels=3), seed=0).double()
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64) * 255
    skip = network.down[0](x / MAX_GRAY)
    low = network.down[1](functional.max_pool2d(skip, 2))
    kernel = functional.pad(network.up[0].weight, (1, 0, 1, 0))
    high = functional.interpolate(low, scale_factor=2)
    high = functional.conv2d(high, kernel, network.up[0].bias, padding=1).relu()
    expected = network.last(network.merge[0](torch.cat([skip, high], 1))) * MAX_GRAY
    torch.testing.assert_close(network(x), expected)


def test_unet_joins_maps_of_equal_depth():
    network = build_denoiser(config.UNet(levels=3, channels=2), seed=0)
    x = torch.rand(1, 1, 32, 32) * 255
    before = network(x)
    with torch.no_grad():
        network.up[0].weight.zero_()  # cuts the deepest map off
    assert not torch.equal(network(x), before)
    shallow = network(x)
    with torch.no_grad():
        network.down[3][0].weight.add_(1)
    assert torch.equal(network(x), shallow)


def test_shallow_unet_has_the_baseline_parameter_count():
    assert trainable(build_denoiser(config.ShallowUNet(), seed=0)) == 59_777


@pytest.mark.parametrize("width", [0.1, 0.5, 2.0])
def test_shallow_unet_keeps_the_shape_at_every_width(width):
    network = build_denoiser(config.ShallowUNet(width=width), seed=0)
    assert network(torch.rand(3, 1, 32, 32) * 255).shape == (3, 1, 32, 32)


def test_shallow_unet_pads_the_even_kernel_below_and_to_the_right():
    network = build_denoiser(config.ShallowUNet(), seed=0).double()
    x = torch.rand(2, 1, 32, 32, dtype=torch.float64) * 255
    skip = network.first(x / MAX_GRAY).relu()
    high = functional.interpolate(
        network.down(functional.max_pool2d(skip, 2)).relu(), scale_factor=2
    )
    # A 3×3 kernel whose first row and column are 0 reads the same pixels with symmetric padding.
    kernel = functional.pad(network.up.weight, (1, 0, 1, 0))
    high = functional.conv2d(high, kernel, network.up.bias, padding=1).relu()
    expected = network.last(network.merge(torch.cat([skip, high], 1)).relu()) * MAX_GRAY
    torch.testing.assert_close(network(x), expected)


def test_shallow_unet_without_biases_does_not_depend_on_the_gray_scale():
    network = build_denoiser(config.ShallowUNet(), seed=0).double()
    x = torch.rand(2, 1, 32, 32, dtype=torch.float64) * 255
    torch.testing.assert_close(network(x / 100) * 100, network(x))
