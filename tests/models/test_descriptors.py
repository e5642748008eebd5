import pytest
import torch
from torch.nn import functional

from hpsearch import config
from hpsearch.models import build_descriptor
from hpsearch.models.descriptors import l2_normalize, standardize
from hpsearch.models.layers import Dropout


def gray(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 1, 32, 32), generator=generator).float()


def test_l2net_has_the_baseline_parameter_counts():
    network = build_descriptor(config.L2Net(), seed=0)
    statistics = [v for k, v in network.named_buffers() if "running" in k]
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 1_336_032
    assert sum(v.numel() for v in statistics) == 896


@pytest.mark.parametrize("width", [0.25, 1.0])
@pytest.mark.parametrize("unit_norm", [False, True])
@pytest.mark.parametrize("patch_norm", [False, True])
def test_l2net_gives_128_numbers_at_every_width(width, unit_norm, patch_norm):
    settings = config.L2Net(width=width, unit_norm=unit_norm, input_norm=patch_norm)
    y = build_descriptor(settings, seed=0)(gray(3))
    assert y.shape == (3, 128)
    assert torch.allclose(y.norm(dim=1), torch.ones(3), atol=1e-5) == unit_norm


def test_the_last_normalization_has_no_parameters_and_ends_as_hardnet_does():
    settings = config.L2Net(final_norm=True, unit_norm=True)
    network = build_descriptor(settings, seed=0)
    assert sum(p.numel() for p in network.parameters()) == 1_336_032
    plain = build_descriptor(config.L2Net(dropout=0), seed=0)
    network.dropout.p = 0.0
    raw = plain(gray(8))
    centered = (raw - raw.mean(0)) / (raw.var(0, unbiased=False) + 1e-3).sqrt()
    expected = centered / centered.norm(dim=1, keepdim=True)
    torch.testing.assert_close(network(gray(8)), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dimensions", [2, 64, 256])
@pytest.mark.parametrize("final_norm", [False, True])
def test_l2net_gives_as_many_numbers_as_asked(dimensions, final_norm):
    settings = config.L2Net(width=0.25, descriptor_dim=dimensions, final_norm=final_norm)
    assert build_descriptor(settings, seed=0)(gray(3)).shape == (3, dimensions)


def keras_forward(network, x):
    """As the Keras network computes, layer by layer, with its kernels: ours turned by 180°."""
    for block in network.blocks:
        kernel, bias = block.conv.weight.flip(2, 3), block.conv.bias
        if block.conv.stride == (2, 2):
            x = functional.conv2d(functional.pad(x, (0, 1, 0, 1)), kernel, bias, stride=2)
        else:
            x = functional.conv2d(x, kernel, bias, padding=1)
        x = block.norm(x).relu()
    return functional.conv2d(x, network.last.weight.flip(2, 3), network.last.bias).flatten(1)


def test_l2net_is_the_keras_network_with_its_kernels_turned():
    network = build_descriptor(config.L2Net(width=0.25), seed=0).double().eval()
    x = gray(5).double()
    torch.testing.assert_close(network(x), keras_forward(network, x), rtol=1e-10, atol=1e-10)


def test_dropout_drops_its_share_and_keeps_the_mean():
    dropout, x = Dropout(0.3), torch.ones(200, 5000)
    torch.manual_seed(0)
    y = dropout(x)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.7], rel=1e-4)
    assert (y == 0).float().mean() == pytest.approx(0.3, abs=2e-3)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)
    assert not torch.equal(dropout(x), y)
    assert torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("momentum", [0.01, 0.1])
def test_batch_norm_has_keras_epsilon_and_the_momentum_of_the_settings(momentum):
    settings = config.L2Net(width=0.1, final_norm=True, bn_momentum=momentum)
    norms = [m for m in build_descriptor(settings, seed=0).modules() if hasattr(m, "running_var")]
    assert [(norm.eps, norm.momentum) for norm in norms] == [(1e-3, momentum)] * 7
    assert config.L2Net().bn_momentum == 0.01


def test_dropout_acts_in_training_mode_alone():
    x = gray(4)
    network = build_descriptor(config.L2Net(width=0.25, dropout=0.5), seed=0).eval()
    assert torch.equal(network(x), network(x))
    network.dropout.train()  # batch normalisation stays in evaluation mode
    assert not torch.equal(network(x), network(x))


def test_a_zero_descriptor_has_a_finite_gradient():
    y = torch.zeros(2, 8, requires_grad=True)
    l2_normalize(y).sum().backward()
    assert torch.equal(l2_normalize(y), torch.zeros(2, 8))
    assert y.grad is not None
    assert y.grad.isfinite().all()


def test_unit_norm_of_half_precision_is_float32():
    y = l2_normalize(torch.randn(3, 128).bfloat16())
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.norm(dim=1), torch.ones(3))


def test_patch_norm_forgets_brightness_and_contrast():
    x = gray(5)
    torch.testing.assert_close(standardize(0.5 * x + 40), standardize(x), atol=1e-3, rtol=0)
    torch.testing.assert_close(standardize(x).std(dim=(2, 3)), torch.ones(5, 1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("level", [0.0, 0.1, 200.3, 255.0])
def test_patch_norm_of_a_constant_patch_is_zero(level):
    assert standardize(torch.full((1, 1, 32, 32), level)).abs().max() < 0.05
