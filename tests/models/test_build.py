import pytest
import torch

from hpsearch import config
from hpsearch.models import build_denoiser, build_descriptor
from hpsearch.models.layers import TRUNCATED_STD

BUILDS = [
    pytest.param(build_denoiser, config.ShallowUNet(), id="shallow_unet"),
    pytest.param(build_denoiser, config.UNet(channels=16), id="unet"),
    pytest.param(build_denoiser, config.DnCNN(depth=5), id="dncnn"),
    pytest.param(build_descriptor, config.L2Net(), id="l2net"),
]


@pytest.mark.parametrize(("build", "settings"), BUILDS)
def test_the_seed_decides_the_weights(build, settings):
    first, again, other = (build(settings, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(("build", "settings"), BUILDS)
def test_building_leaves_the_global_random_state_alone(build, settings):
    before = torch.get_rng_state()
    build(settings, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("build", "settings"), BUILDS)
def test_weights_are_he_normal_and_biases_zero(build, settings):
    for module in build(settings, seed=0).requires_grad_(False).modules():
        residual = isinstance(settings, config.DnCNN) and getattr(module, "out_channels", 0) == 1
        if isinstance(module, torch.nn.Conv2d) and not residual:
            std = (2 / module.weight[0].numel()) ** 0.5
            assert module.weight.abs().max() <= 2.0001 * std / TRUNCATED_STD
            assert module.bias is None or torch.count_nonzero(module.bias) == 0
            error = module.weight.numel() ** -0.5
            assert float(module.weight.std()) == pytest.approx(std, rel=4 * error)
            assert float(module.weight.mean()) == pytest.approx(0, abs=4 * error * std)
