"""What a saved pipeline takes, what it refuses, and that loading it runs nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch.config import Compression, ConvNet, DnCNN, L2Net
from hpsearch.config.networks import DnCNNTransfer, ShallowUNet
from hpsearch.errors import UserError
from hpsearch.models import Pipeline, build_denoiser, build_descriptor, describe
from hpsearch.models.ensemble import compressed
from hpsearch.models.serialization import (
    WEIGHTS_FILE,
    PipelineSpec,
    PyfuncModel,
    as_array,
    load_pipeline,
    save_pipeline,
    validate_patches,
)

RECIPE = PipelineSpec(
    denoiser=ShallowUNet(width=0.125), descriptor=L2Net(width=0.125, unit_norm=True, dropout=0.5)
)


def patches(number, seed=0):
    return np.random.default_rng(seed).integers(256, size=(number, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    assert RECIPE.denoiser is not None
    pipeline = Pipeline(
        denoiser=build_denoiser(RECIPE.denoiser, seed=1),
        descriptor=build_descriptor(RECIPE.descriptor, seed=2),
    )
    to = tmp_path_factory.mktemp("pipeline")
    save_pipeline(pipeline, RECIPE, to)
    return to


@pytest.fixture(scope="module")
def served(folder) -> PyfuncModel:
    return PyfuncModel(load_pipeline(folder))


def test_a_compression_is_saved_with_its_network(tmp_path):
    spec = PipelineSpec(
        denoiser=None,
        descriptor=ConvNet(width=0.125, descriptor_dim=24),
        compression=Compression(descriptor_dim=8),
    )
    network = Pipeline(denoiser=None, descriptor=build_descriptor(spec.descriptor, seed=2)).eval()
    pipeline = compressed(network, patches(100), descriptor_dim=8)
    save_pipeline(pipeline, spec, tmp_path)
    found = PyfuncModel(load_pipeline(tmp_path)).predict(patches(5, seed=1))
    assert found.shape == (5, 8)
    np.testing.assert_allclose(found, describe(pipeline, patches(5, seed=1)), atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 150])
def test_descriptors_do_not_depend_on_how_many_patches_come_with_them(served, size):
    every = patches(150)
    whole = served.predict(every)
    parts = [served.predict(every[start : start + size]) for start in range(0, 150, size)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("nothing", [[], np.empty((0, 32, 32), np.uint8)])
def test_no_patches_have_no_descriptors(served, nothing):
    found = served.predict(nothing)
    assert (found.shape, found.dtype) == ((0, 128), np.float32)


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64", "int64", "float16", "object"])
def test_any_kind_of_number_gives_the_same_descriptors(served, kind):
    x = patches(3)
    assert np.array_equal(served.predict(x.astype(kind)), served.predict(x))
    assert np.array_equal(served.predict({"patches": x.tolist()}), served.predict(x))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((32, 32)), r"shape \(N, 32, 32\), got \(32, 32\)"),
        (np.zeros((2, 65, 65)), r"got \(2, 65, 65\)"),
        ([[[1, 2], [3]]], "rows differ in length"),
        (np.full((1, 32, 32), "a"), "must be numbers"),
        (np.full((1, 32, 32), "a", object), "must be numbers, got something else"),
        (np.full((1, 32, 32), None), "nan in patch 0"),
        (np.zeros((1, 32, 32), bool), "must be numbers, got bool"),
        (np.full((1, 32, 32), -1), "-1 in patch 0"),
        (np.full((1, 32, 32), 1e300), "inf in patch 0"),
        (np.full((1, 32, 32), 0.5), "multiply them by 255"),
    ],
)
def test_what_is_no_patch_is_refused(given, words):
    with pytest.raises(UserError, match=words):
        validate_patches(as_array(given))


def test_the_first_value_that_is_no_gray_level_is_named():
    x = patches(5).astype(float)
    x[3, 1, 2] = np.nan
    with pytest.raises(UserError, match="nan in patch 13, row 1, column 2"):
        validate_patches(x, first=10)


def test_dark_patches_are_no_scaled_ones():
    assert validate_patches(np.ones((1, 32, 32))).max() == 1


def test_a_transferred_denoiser_loads_where_its_first_weights_are_gone(tmp_path):
    front = DnCNN(depth=3, channels=2)
    torch.save(build_denoiser(front, seed=0).state_dict(), tmp_path / "front.pt")
    settings = DnCNNTransfer(front=front, weights=str(tmp_path / "front.pt"), head=front)
    recipe = PipelineSpec(denoiser=settings, descriptor=RECIPE.descriptor)
    pipeline = Pipeline(
        denoiser=build_denoiser(settings, seed=1),
        descriptor=build_descriptor(recipe.descriptor, seed=2),
    ).eval()
    save_pipeline(pipeline, recipe, tmp_path / "saved")
    (tmp_path / "front.pt").unlink()
    x = torch.from_numpy(patches(2))
    torch.testing.assert_close(load_pipeline(tmp_path / "saved")(x), pipeline(x))


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_the_weights_is_not_run(folder, tmp_path):
    save_pipeline(load_pipeline(folder), RECIPE, tmp_path)
    weights = torch.load(tmp_path / WEIGHTS_FILE, weights_only=True)
    torch.save({**weights, "extra": Bomb(tmp_path / "ran")}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(UserError, match="contains no pipeline"):
        load_pipeline(tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / WEIGHTS_FILE, weights_only=False)
    assert (tmp_path / "ran").exists(), "the bomb is real"


@pytest.mark.parametrize("damage", [b"", b"{}", b"no zip"])
def test_damaged_weights_are_one_sentence(folder, tmp_path, damage):
    save_pipeline(load_pipeline(folder), RECIPE, tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(damage)
    with pytest.raises(UserError, match="register the model again"):
        load_pipeline(tmp_path)


def test_weights_of_another_network_are_one_sentence(folder, tmp_path):
    wider = RECIPE.model_copy(update={"descriptor": L2Net(width=0.25)})
    save_pipeline(load_pipeline(folder), wider, tmp_path)
    with pytest.raises(UserError, match="register the model again"):
        load_pipeline(tmp_path)
