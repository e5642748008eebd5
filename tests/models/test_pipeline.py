import numpy as np
import pytest
import torch

from hpsearch import config
from hpsearch.models import Pipeline, build_denoiser, build_descriptor, denoise, describe
from hpsearch.models.layers import TRUNCATED_STD


def patches(n, seed=0):
    return np.random.default_rng(seed).integers(256, size=(n, 32, 32), dtype=np.uint8)


def pipeline(*, denoised=True, unit_norm=False):
    return Pipeline(
        denoiser=build_denoiser(config.ShallowUNet(width=0.25), seed=1) if denoised else None,
        descriptor=build_descriptor(config.L2Net(width=0.25, unit_norm=unit_norm), seed=2),
    )


@pytest.mark.parametrize("denoised", [False, True])
def test_pipeline_takes_uint8_and_float_alike(denoised):
    x, network = torch.from_numpy(patches(3)), pipeline(denoised=denoised).eval()
    y = network(x)
    assert (y.shape, y.dtype) == ((3, 128), torch.float32)
    assert torch.equal(network(x.float()), y)


def test_pipeline_clips_what_the_denoiser_gives():
    class Offset(torch.nn.Module):
        def forward(self, x):
            return x * 3 - 255

    x = torch.from_numpy(patches(4))
    plain = pipeline(denoised=False).eval()
    whole = Pipeline(denoiser=Offset(), descriptor=plain.descriptor).eval()
    assert torch.equal(whole(x), plain((x.float() * 3 - 255).clamp(0, 255)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_an_exported_pipeline_takes_any_batch(dtype):
    network = pipeline(unit_norm=True).eval()
    program = torch.export.export(
        network,
        (torch.from_numpy(patches(2)).to(dtype),),
        dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
    ).module()
    for n in (1, 5, 300):
        x = torch.from_numpy(patches(n, seed=n)).to(dtype)
        torch.testing.assert_close(program(x), network(x))


@pytest.mark.parametrize("batch", [1, 3, 7, 100])
def test_describe_does_not_depend_on_the_batch(batch):
    network, x = pipeline(), patches(7)
    whole = network.eval()(torch.from_numpy(x)).detach().numpy()
    got = describe(network, x, batch=batch)
    assert (got.shape, got.dtype) == ((7, 128), np.float32)
    np.testing.assert_allclose(got, whole, rtol=1e-4, atol=1e-3)


def test_describe_restores_the_mode_of_every_part():
    network = pipeline().train()
    network.descriptor.eval()
    before = [module.training for module in network.modules()]
    statistics = {k: v.clone() for k, v in network.named_buffers()}
    describe(network, patches(4))
    assert [module.training for module in network.modules()] == before
    assert all(torch.equal(v, statistics[k]) for k, v in network.named_buffers())


def test_denoise_rounds_and_clips_to_gray_levels():
    class Twice(torch.nn.Module):
        def forward(self, x):
            return x * 2 - 100.4

    x = patches(5)
    expected = np.clip(np.round(x.astype(np.float64) * 2 - 100.4), 0, 255).astype(np.uint8)
    assert np.array_equal(denoise(Twice(), x, batch=2), expected)


@pytest.mark.parametrize("network", [describe, denoise])
def test_no_patches_are_refused(network):
    with pytest.raises(ValueError, match="at least one"):
        network(torch.nn.Identity(), patches(0))


def test_read_only_patches_are_described():
    x = patches(3)
    x.flags.writeable = False
    assert describe(pipeline(), x).shape == (3, 128)


def test_every_kind_of_layer_can_be_exported():
    network = Pipeline(
        denoiser=torch.nn.Sequential(
            build_denoiser(config.UNet(levels=2, channels=2), seed=0),
            build_denoiser(config.DnCNN(depth=3, channels=2), seed=0),
        ),
        descriptor=build_descriptor(
            config.L2Net(width=0.1, input_norm=True, final_norm=True, descriptor_dim=32), seed=0
        ),
    ).eval()
    example = (torch.from_numpy(patches(2)),)
    shapes = ({0: torch.export.Dim("n", min=1)},)
    program = torch.export.export(network, example, dynamic_shapes=shapes).module()
    x = torch.from_numpy(patches(7))
    torch.testing.assert_close(program(x), network(x))


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
