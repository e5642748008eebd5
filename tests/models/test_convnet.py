"""The network of stages: counts of the papers, formulas as slow loops, and equality with L2-Net."""

import math

import numpy as np
import pytest
import torch

from hpsearch.config import ConvNet, HeNormal, L2Net, Orthogonal, Stage
from hpsearch.errors import UserError
from hpsearch.models import Pipeline, build_descriptor, describe
from hpsearch.models.convnet import TLU, BlurPool, FilterResponseNorm
from hpsearch.models.ensemble import compressed
from hpsearch.recipes import CONVNETS

PUBLISHED_COUNTS = {
    "l2net": 1_336_032,  # the coursework's notebook; 1,334,560 + 1,472 biases, scales and shifts
    "hardnet": 1_334_560,  # DagnyT/hardnet and scape-research/SOSNet, counted from their layers
    "hardnet8": 8_969_504,  # kornia's HardNet8, counted from its layers
    "hynet": 1_336_355,  # yuruntian/HyNet, counted from its layers
}


def gray(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 1, 32, 32), generator=generator).float()


@pytest.mark.parametrize("name", PUBLISHED_COUNTS)
def test_networks_have_the_parameter_counts_of_the_papers(name):
    network = build_descriptor(CONVNETS[name], seed=0)
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED_COUNTS[name]


@pytest.mark.parametrize(
    "extra", [{}, {"input_norm": True, "final_norm": True, "unit_norm": True}], ids=["raw", "unit"]
)
def test_l2net_is_a_setting_of_it_with_equal_weights_outputs_and_gradients(extra):
    ours = L2Net(width=0.25, dropout=0, **extra)
    stages = CONVNETS["l2net"].model_copy(
        update={
            "width": 0.25,
            "dropout": 0.0,
            **{name: True for name in extra if name != "input_norm"},
            "input_norm": "patch" if extra else "none",
        }
    )
    one, other = build_descriptor(ours, seed=3), build_descriptor(stages, seed=3)
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    for training in (True, False):
        a, b = one.train(training)(gray(6)), other.train(training)(gray(6))
        torch.testing.assert_close(a, b)
        a.square().sum().backward()
        b.square().sum().backward()
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_filter_response_normalization_is_its_formula(dtype):
    layer, x = FilterResponseNorm(3), torch.randn(2, 3, 4, 5).mul(50).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, -1.0]).view(1, 3, 1, 1))
        layer.bias.copy_(torch.tensor([0.0, 0.5, 3.0]).view(1, 3, 1, 1))
    found, weight, bias = layer(x).detach(), layer.weight.detach(), layer.bias.detach()
    assert found.dtype == dtype
    for i in range(2):
        for c in range(3):
            values = [float(v) for v in x[i, c].flatten()]
            norm = math.sqrt(sum(v * v for v in values) / len(values) + 1e-6)
            for v, w in zip(values, found[i, c].flatten(), strict=True):
                expected = v / norm * float(weight[0, c]) + float(bias[0, c])
                assert float(w) == pytest.approx(
                    expected, rel=1e-5 if dtype.itemsize == 4 else 0.01
                )


def test_a_flat_black_map_stays_finite():
    network = build_descriptor(CONVNETS["hynet"].model_copy(update={"width": 0.125}), seed=0)
    y = network.eval()(torch.zeros(2, 1, 32, 32))
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_tlu_is_the_larger_of_map_and_threshold():
    layer = TLU(2)
    layer.tau.data.copy_(torch.tensor([-1.0, 2.0]).view(1, 2, 1, 1))
    x = torch.tensor([-3.0, 0.0, 5.0]).view(1, 1, 1, 3).expand(1, 2, 1, 3)
    assert layer(x)[0, :, 0].tolist() == [[-1.0, 0.0, 5.0], [2.0, 2.0, 5.0]]


def test_blur_pooling_averages_with_the_binomial_filter():
    x = torch.randn(1, 2, 6, 6)
    found, weights = BlurPool(2)(x), (0.25, 0.5, 0.25)
    assert found.shape == (1, 2, 3, 3)

    def at(c, row, column):
        return float(x[0, c, abs(row), abs(column)])  # reflected at the upper and left border

    for c, i, j in np.ndindex(2, 3, 3):
        expected = sum(
            weights[a] * weights[b] * at(c, 2 * i + a - 1, 2 * j + b - 1)
            for a in range(3)
            for b in range(3)
        )
        assert float(found[0, c, i, j]) == pytest.approx(expected, abs=1e-6)


def test_a_shift_by_one_pixel_changes_blur_pooling_less_than_strides():
    maps = torch.randn(1, 1, 32, 32)
    moved = maps.roll(1, 3)
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    pool = BlurPool(1)
    blurred = (pool(moved) - pool(maps))[inner].square().mean() / pool(maps)[inner].square().mean()
    strided = (moved - maps)[..., ::2, ::2].square().mean() / maps[..., ::2, ::2].square().mean()
    assert blurred < 0.75 * strided


def test_orthogonal_weights_are_orthogonal_with_their_gain():
    network = build_descriptor(ConvNet(width=0.25, init=Orthogonal(gain=0.6)), seed=0)
    for weight in (p.flatten(1) for p in network.parameters() if p.dim() == 4):
        rows = weight if weight.shape[0] <= weight.shape[1] else weight.T
        torch.testing.assert_close(rows @ rows.T, 0.36 * torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_equal_seeds_give_equal_weights_and_leave_the_random_state_alone():
    before = torch.random.get_rng_state()
    one, other, third = (build_descriptor(ConvNet(width=0.125), seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    first = [next(network.parameters()) for network in (one, other, third)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_group_normalization_does_not_depend_on_the_batch():
    settings = ConvNet(width=0.25, norm="group", affine=True, final_norm=False, dropout=0.0)
    network = build_descriptor(settings, seed=0).train()
    torch.testing.assert_close(network(gray(4))[:1], network(gray(4)[:1]))


def test_a_residual_block_adds_its_input():
    stages = (Stage(channels=8), Stage(channels=8, residual=True, activation="leaky_relu"))
    settings = ConvNet(stages=stages, bias=True, init=HeNormal(), final_norm=False)
    network = build_descriptor(settings, seed=0).eval()
    block, x = network.blocks[1], torch.randn(2, 8, 6, 6)
    assert len(block.shortcut) == 0
    with torch.no_grad():
        block.conv.weight.zero_()
    torch.testing.assert_close(block(x), torch.nn.functional.leaky_relu(x, 0.1))


@pytest.mark.parametrize("reduce", ["stride", "max", "blur"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("head", ["covering", "pooled"])
def test_every_combination_gives_a_descriptor(reduce, residual, head):
    stages = (Stage(channels=6, kernel=5), Stage(channels=8, reduce=reduce, residual=residual))
    settings = ConvNet(stages=stages, head=head, descriptor_dim=16)
    assert build_descriptor(settings, seed=0)(gray(3)).shape == (3, 16)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ((), "at least 1 item"),
        ((Stage(channels=4, reduce="max"),) * 6, "at most 5 stages"),
        ((Stage(channels=4, reduce="blur"),) * 5, "blur pooling needs a map"),
    ],
)
def test_a_map_of_nothing_is_refused(stages, message):
    with pytest.raises(ValueError, match=message):
        ConvNet(stages=stages)


def patches(number, seed=0):
    return np.random.default_rng(seed).integers(256, size=(number, 32, 32), dtype=np.uint8)


@pytest.fixture
def narrow():
    settings = ConvNet(width=0.125, descriptor_dim=24)
    return Pipeline(denoiser=None, descriptor=build_descriptor(settings, seed=0)).eval()


def test_compression_keeps_the_directions_of_largest_variance(narrow):
    rows = describe(narrow, patches(200))
    found = compressed(narrow, patches(200), descriptor_dim=8)
    centered = rows - rows.mean(0)
    directions = np.linalg.svd(centered, full_matrices=False)[2][:8]
    expected = centered @ directions.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    ours = describe(found, patches(200))
    np.testing.assert_allclose(np.abs(ours), np.abs(expected), atol=2e-4)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("number", "dimensions"), [(200, 25), (8, 8)])
def test_a_compression_that_cannot_be_fitted_is_refused(narrow, number, dimensions):
    with pytest.raises(UserError, match="cannot"):
        compressed(narrow, patches(number), descriptor_dim=dimensions)
