"""An ONNX file gives the pipeline's descriptors, or is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from hpsearch.config import L2Net
from hpsearch.config.networks import ShallowUNet
from hpsearch.errors import UserError
from hpsearch.models import Pipeline, build_denoiser, build_descriptor, describe
from hpsearch.models.onnx_export import (
    MAX_PARITY_DIFFERENCE,
    export_onnx,
    max_difference,
    parity_patches,
)

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")


def pipeline(seed=0):
    settings = L2Net(width=0.125, dropout=0.5, input_norm=True, final_norm=True, unit_norm=True)
    return Pipeline(
        denoiser=build_denoiser(ShallowUNet(width=0.125), seed=seed),
        descriptor=build_descriptor(settings, seed=seed),
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "pipeline.onnx"
    found = export_onnx(pipeline(), path, metadata={"hpsearch.model": "a test"})
    assert found <= MAX_PARITY_DIFFERENCE
    return path


@pytest.mark.parametrize("number", [0, 1, 3, 130])
def test_any_number_of_patches_gives_the_pipelines_descriptors(exported, number):
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(number)
    patches = rng.integers(256, size=(number, 32, 32)).astype(np.float32)
    (found,) = session.run(["descriptors"], {"patches": patches})
    assert found.shape == (number, 128)
    if number:
        np.testing.assert_allclose(
            found, describe(pipeline().eval(), patches), atol=MAX_PARITY_DIFFERENCE
        )


def test_a_black_patch_gives_no_nan(exported):
    """The exporter's optimiser would drop the small number that a zero descriptor is divided by."""
    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    (found,) = session.run(["descriptors"], {"patches": np.zeros((2, 32, 32), np.float32)})
    assert np.isfinite(found).all()


def test_the_file_says_which_model_it_is(exported):
    onnx = pytest.importorskip("onnx")
    facts = {one.key: one.value for one in onnx.load(exported).metadata_props}
    assert facts["hpsearch.model"] == "a test"


def test_another_network_differs(exported):
    assert max_difference(pipeline(seed=1).eval(), exported) > MAX_PARITY_DIFFERENCE


class Drifting(nn.Module):
    """Exported, it gives something else."""

    def __init__(self, drift: float) -> None:
        super().__init__()
        self.drift = drift

    def forward(self, patches):
        drift = self.drift if torch.compiler.is_exporting() else 0.0
        return patches.flatten(1)[:, :8] / 255 + drift


def test_large_descriptors_without_unit_length_are_compared_relative_to_their_size(tmp_path):
    network = build_descriptor(L2Net(width=0.125), seed=0)
    raw = Pipeline(denoiser=None, descriptor=network).eval()
    with torch.no_grad():
        assert raw(torch.from_numpy(parity_patches(65))).abs().max() > 100
    found = export_onnx(raw, tmp_path / "x.onnx", metadata={})
    assert found <= MAX_PARITY_DIFFERENCE / 10


def test_a_file_that_differs_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"more than 0.0001"):
        export_onnx(Drifting(2e-4), tmp_path / "x.onnx", metadata={})
