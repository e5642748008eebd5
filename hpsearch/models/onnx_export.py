"""ONNX export of a pipeline, with a parity check against the pipeline."""

import copy
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hpsearch.errors import UserError
from hpsearch.patch_views import SIDE
from hpsearch.shapes import Float, Num
from hpsearch.untrusted import reason

MAX_PARITY_DIFFERENCE = 1e-4
"""Maximum difference of descriptors between ONNX file and pipeline; relative to the largest number
of a batch where that is above 1, as it is without unit length."""
ONNX_FILE = "pipeline.onnx"
"""File name of the ONNX of a registered model, next to its weights."""
REQUIRED_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
MISSING_PACKAGE = "missing-package"
"""Code of the error that a package is not installed."""
PARITY_BATCHES = (1, 2, 65)
"""Batch sizes of the parity check: one, the exported one, more than a block."""


def missing_onnx_packages() -> list[str]:
    """Packages of the export that are not installed here."""
    return [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]


def require_onnx() -> None:
    """Check that the packages for the export are installed.

    Raises:
        UserError: if one is missing.
    """
    missing = missing_onnx_packages()
    if missing:
        raise UserError(
            f"the export needs {', '.join(missing)}; install them with `make install`, or in "
            "another environment with `pip install '.[onnx]'` in hpsearch's checkout"
        )


def export_onnx(pipeline: nn.Module, path: Path, *, metadata: dict[str, str]) -> float:
    """Write a pipeline to ``path`` as ONNX; returns the largest difference in onnxruntime.

    The file takes ``patches``, float32 (n, 32, 32) in gray levels 0…255, n any number, and gives
    ``descriptors``. It is written before it is compared: the caller deletes it after an error.

    Args:
        pipeline: the pipeline, on the CPU.
        path: the file to write.
        metadata: key-value pairs for the file's metadata.

    Raises:
        UserError: if the network cannot be converted, or descriptors differ by more than
            ``MAX_PARITY_DIFFERENCE``.
    """
    with _suppress_exporter_warnings():
        program = _program(pipeline.eval())
        program.model.metadata_props.update(metadata)
        program.save(path, external_data=False)
    found = max_difference(pipeline, path)
    if not found <= MAX_PARITY_DIFFERENCE:  # also fails for NaN
        raise UserError(
            f"the exported network differs from the pipeline by {found:.1e}, more than "
            f"{MAX_PARITY_DIFFERENCE:g}, "
            "and is deleted; use the model through hpsearch or MLflow"
        )
    return found


def _program(pipeline: nn.Module) -> "torch.onnx.ONNXProgram":
    """Convert a network, traced with two patches and any number of them allowed."""
    try:
        program = torch.onnx.export(
            pipeline,
            (torch.zeros(2, SIDE, SIDE),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            input_names=["patches"],
            output_names=["descriptors"],
            # The optimizer takes constants below 1e-8 for 0 and drops the addition that keeps a
            # zero descriptor finite; runtimes optimize by themselves when they load.
            optimize=False,
            verbose=False,
        )
    except Exception as error:  # the exporter documents none; the network may be a user's
        raise UserError(
            f"the network cannot be converted to ONNX ({reason(error)}); use operations of torch "
            "alone, and none that depend on values of the patches",
            code="not-exportable",
        ) from error
    assert program is not None, "the exporter with dynamo=True returns a program"
    return program


class OnnxProgram(nn.Module):
    """Network that onnxruntime computes from a graph and its weights; no code is run.

    Args:
        program: content of an ONNX file, as ``export_onnx`` writes it.

    Raises:
        UserError: if onnxruntime is not installed.
    """

    program: torch.Tensor

    def __init__(self, program: bytes) -> None:
        super().__init__()
        if importlib.util.find_spec("onnxruntime") is None:
            raise UserError(
                "this model is an ONNX program, which needs onnxruntime; install it with "
                "`pip install onnxruntime`",
                code=MISSING_PACKAGE,
            )
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            program, options, providers=["CPUExecutionProvider"]
        )
        content = torch.from_numpy(np.frombuffer(program, np.uint8).copy())
        self.register_buffer("program", content)  # so that a fingerprint depends on it

    @property
    def content(self) -> bytes:
        """Content of the ONNX file."""
        return self.program.cpu().numpy().tobytes()

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        given = patches.detach().cpu().to(torch.float32).numpy()
        (found,) = self.session.run(["descriptors"], {"patches": given})
        return torch.from_numpy(np.asarray(found, np.float32)).to(patches.device)


def add_onnx(pipeline: nn.Module, folder: Path, *, metadata: dict[str, str]) -> str:
    """Write a pipeline as ONNX next to its weights; returns a sentence about it for people.

    Nothing is written where a package of the export is missing, or the descriptors would differ.
    """
    if missing := missing_onnx_packages():
        return (
            f"It has no ONNX file, because {', '.join(missing)} was not installed where it was "
            "registered."
        )
    path = folder / ONNX_FILE
    try:
        found = export_onnx(copy.deepcopy(pipeline).cpu(), path, metadata=metadata)
    except UserError as error:
        path.unlink(missing_ok=True)
        return f"It has no ONNX file: {error}."
    return (
        f"Its file `{ONNX_FILE}` gives the same descriptors with onnxruntime alone; they differed "
        f"by at most {found:.1e} when it was registered."
    )


def onnx_descriptor(path: Path) -> Callable[[Num[np.ndarray, "n 32 32"]], Float[np.ndarray, "n d"]]:
    """Descriptor function of an ONNX file that ``export_onnx`` wrote, in onnxruntime.

    Raises:
        UserError: if onnxruntime is missing, or the file is no descriptor of patches.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise UserError(
            f"{path} needs onnxruntime; install it with `pip install '.[onnx]'` in hpsearch's "
            "checkout, or give another model"
        )
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        session.run(None, {given.name: np.zeros((1, SIDE, SIDE), np.float32)})
    except Exception as error:  # a reader of crafted bytes may raise anything
        raise UserError(
            f"{path} is not an ONNX descriptor of patches (n, {SIDE}, {SIDE}); give one that "
            "`hpsearch export` wrote"
        ) from error
    return lambda patches: np.asarray(
        session.run(None, {given.name: patches.astype(np.float32)})[0]
    )


def max_difference(pipeline: nn.Module, path: Path) -> float:
    """Largest difference between an ONNX file and a pipeline, over several batches.

    It is relative to the largest number of a batch where that is above 1: float32 keeps seven
    digits, and descriptors without unit length may be in the hundreds.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = []
    for number in PARITY_BATCHES:
        patches = parity_patches(number)
        with torch.inference_mode():
            expected = pipeline(torch.from_numpy(patches)).numpy()
        (given,) = session.run(["descriptors"], {"patches": patches})
        scale = max(1.0, float(np.abs(expected).max()))
        found.append(np.abs(np.asarray(given) - expected).max() / scale)
    return float(np.max(found))


def parity_patches(number: int) -> Float[np.ndarray, "n 32 32"]:
    """Patches for the parity check, in whole gray levels: noise, ramps, edges, and flat patches.

    Flat patches have whole gray levels, black first: with others, the patch minus its mean is
    rounding only, on which two programs need not agree.
    """
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    kinds = [
        lambda: np.zeros((SIDE, SIDE)),
        lambda: rng.integers(0, 256, (SIDE, SIDE)),
        lambda: np.clip(rng.normal() * rows * 8 + rng.normal() * columns * 8, 0, 255),
        lambda: np.where(rows + columns * rng.normal() > SIDE, 255, rng.integers(0, 256)),
        lambda: np.full((SIDE, SIDE), 255 * rng.random()),
    ]
    patches = np.stack([kinds[i % len(kinds)]() for i in range(number)])
    return patches.round().astype(np.float32)


@contextmanager
def _suppress_exporter_warnings() -> Iterator[None]:
    """Suppress the exporter's warnings about deprecations and optional packages."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)
