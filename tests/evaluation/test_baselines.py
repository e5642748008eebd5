import numpy as np
import pytest
import torch
from skimage.feature import SIFT

from hpsearch.errors import UserError
from hpsearch.evaluation.baselines import pixel_descriptor, root_sift, sift


def textures(n, side):
    """Smooth random patches, uint8."""
    noise = np.random.default_rng(0).standard_normal((n, side + 8, side + 8))
    kernel = np.ones(9) / 9
    for axis in (1, 2):
        noise = np.apply_along_axis(np.convolve, axis, noise, kernel, "valid")
    spread = noise / noise.std(axis=(1, 2), keepdims=True)
    return np.clip(128 + 40 * spread, 0, 255).astype(np.uint8)


def test_pixels_follow_their_formula():
    patches = textures(5, 32)
    found = pixel_descriptor(torch.from_numpy(patches)).numpy()
    small = patches.reshape(5, 16, 2, 16, 2).mean(axis=(2, 4)).reshape(5, 256)
    expected = (small - small.mean(1, keepdims=True)) / small.std(1, keepdims=True)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-4)


def test_pixels_ignore_contrast_and_brightness_and_spare_flat_patches():
    patches = torch.from_numpy(textures(5, 32))
    dimmer = (patches.float() / 2 + 20).to(torch.uint8)
    found, dim = pixel_descriptor(patches), pixel_descriptor(dimmer)
    assert torch.allclose(found, dim, atol=0.1)
    flat = torch.full((1, 32, 32), 7, dtype=torch.uint8)
    flat[0, 0, 0] = 8
    assert pixel_descriptor(flat).abs().max() < 1
    assert pixel_descriptor(torch.from_numpy(textures(2, 65))).shape == (2, 256)
    with pytest.raises(UserError, match="at least 16×16"):
        pixel_descriptor(patches[:, :8])


@pytest.mark.parametrize("side", [32, 65])
def test_sift_of_many_patches_is_sift_of_each(side):
    patches = textures(260, side)
    found = sift(patches)
    assert found.shape == (260, 128)
    for i in (0, 17, 255, 256, 259):
        assert (sift(patches[i : i + 1])[0] == found[i]).all()


@pytest.mark.parametrize("side", [32, 65])
def test_sift_is_scikit_images_at_the_center_of_the_patch(side):
    margin, patches = 8, textures(40, side)
    reference = SIFT(upsampling=1, n_octaves=1, n_scales=1)
    reference.positions = np.full((1, 2), margin + (side - 1) / 2)
    reference.sigmas = np.array([side / 15])  # its window is then as wide as the patch
    reference.scales = reference.octaves = np.array([0])
    reference.orientations = np.array([0.0])
    for patch, found in zip(patches, sift(patches), strict=True):
        reference.extract(np.pad(patch, margin, mode="edge").astype(np.float32) / 255)
        apart = np.abs(reference.descriptors[0].astype(int) - found)
        assert apart.max() <= 1
        assert (apart > 0).mean() < 0.02, "values beside a whole number"


def test_sift_sees_the_patch():
    patches = textures(40, 32)
    noise = np.random.default_rng(1).normal(0, 5, patches.shape)
    noisy = np.clip(patches + noise, 0, 255).astype(np.uint8)
    a, b = root_sift(patches), root_sift(noisy)
    assert np.linalg.norm(a, axis=1) == pytest.approx(np.ones(40), abs=1e-5)
    assert ((a @ b.T).argmax(axis=1) == np.arange(40)).all()


def test_flat_patches_and_odd_shapes():
    flat = np.full((2, 32, 32), 9, np.uint8)
    assert not sift(flat).any()
    assert not root_sift(flat).any()
    assert sift(flat[:0]).shape == (0, 128)
    with pytest.raises(UserError, match="side"):
        sift(flat[:, :30])
