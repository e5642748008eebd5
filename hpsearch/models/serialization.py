"""Serialization of pipelines to files, and MLflow's pyfunc loader.

The files are the settings as JSON and the weights as a state dict, read with ``weights_only``: an
artifact contains no code, and none is run from it. The code is that of the installed package. A
pipeline with the user's own network is an ONNX program instead, graph and weights, which
onnxruntime computes. The archives of ``torch.export`` are not used: reading one may unpickle, and
so run, what it contains.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, TypeAdapter
from torch import nn

from hpsearch.config.base import FrozenConfig
from hpsearch.config.networks import (
    AnyDenoiser,
    AnyStoredDescriptor,
    Compression,
    Denoiser,
    DnCNNTransfer,
)
from hpsearch.defaults import SPEC_FILE
from hpsearch.errors import UserError
from hpsearch.models import denoisers
from hpsearch.models.ensemble import Combine, Ensemble
from hpsearch.models.onnx_export import (
    MISSING_PACKAGE,
    ONNX_FILE,
    OnnxProgram,
    export_onnx,
    require_onnx,
)
from hpsearch.models.pipeline import Compression as CompressionLayer
from hpsearch.models.pipeline import Pipeline, build_denoiser, build_descriptor, describe
from hpsearch.patch_views import SIDE
from hpsearch.schema import NewerSchema, from_json, to_json
from hpsearch.shapes import Float, Num

WEIGHTS_FILE = "weights.pt"
CPU_BATCH = 64
"""Patches per forward pass on a CPU; feature maps of larger batches exceed a core's cache."""


class PipelineSpec(FrozenConfig):
    """Networks of a saved pipeline."""

    version: Literal[1] = Field(default=1, exclude=True)
    """Version of hpsearch; read from models of 0.1.0, and no longer written."""
    denoiser: AnyDenoiser | None
    descriptor: AnyStoredDescriptor
    compression: Compression | None = None


class EnsembleSpec(FrozenConfig):
    """Pipelines of a saved ensemble, and how they are combined."""

    former_names: ClassVar[Mapping[str, str]] = {"descriptor_dim": "dimensions"}

    version: Literal[1] = Field(default=1, exclude=True)
    """Version of hpsearch, as in ``PipelineSpec``."""
    members: tuple[PipelineSpec, ...] = Field(min_length=2)
    combine: Combine
    descriptor_dim: int = Field(ge=2)


class ProgramSpec(FrozenConfig):
    """Pipeline saved as an ONNX program, because it contains the user's own network."""

    program: Literal["onnx"] = "onnx"
    network: str
    """Name of the network, for people."""


AnySpec = PipelineSpec | EnsembleSpec | ProgramSpec
LoadedPipeline = Pipeline | Ensemble | OnnxProgram
SPEC_ADAPTER: TypeAdapter[AnySpec] = TypeAdapter(AnySpec)


def save_pipeline(pipeline: nn.Module, spec: AnySpec, folder: Path) -> None:
    """Write the settings and weights of a pipeline into ``folder``.

    Raises:
        UserError: if it is written as a program, and that cannot be done here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(spec, ProgramSpec):
        save_program(pipeline, folder)
    else:
        weights = {name: x.cpu() for name, x in pipeline.state_dict().items()}
        torch.save(weights, folder / WEIGHTS_FILE)
    (folder / SPEC_FILE).write_text(to_json(spec.model_dump(mode="json"), indent=1), "utf-8")


def save_program(pipeline: nn.Module, folder: Path) -> None:
    """Write a pipeline as ONNX, and compare both.

    Raises:
        UserError: if a package of the export is missing, the network cannot be converted, or the
            descriptors differ; nothing is left then.
    """
    require_onnx()
    path = folder / ONNX_FILE
    try:
        export_onnx(copy.deepcopy(pipeline).cpu(), path, metadata={})
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def weights_file(folder: Path) -> Path:
    """File with the weights of a saved pipeline: a state dict, or a program."""
    weights = folder / WEIGHTS_FILE
    return weights if weights.exists() else folder / ONNX_FILE


def load_pipeline(folder: Path) -> LoadedPipeline:
    """Load the pipeline in ``folder``, on the CPU, in evaluation mode.

    Raises:
        UserError: if it was written by an unknown version, is damaged, or contains anything but
            weights; if it is a program, and onnxruntime is not installed.
    """
    try:
        spec = read_spec(folder)
        if isinstance(spec, ProgramSpec):
            return OnnxProgram((folder / ONNX_FILE).read_bytes()).eval()
        pipeline = _uninitialized(spec)
        weights = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True)
        pipeline.load_state_dict(weights)
    except Exception as error:  # a reader of crafted bytes may raise anything
        if isinstance(error, NewerSchema) or getattr(error, "code", "") == MISSING_PACKAGE:
            raise
        raise UserError(
            f"{folder} contains no pipeline that this version can read; install the version of "
            "hpsearch that wrote it, or register the model again"
        ) from error
    # The type stubs know memory_format for tensors only.
    return pipeline.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def read_spec(folder: Path) -> AnySpec:
    """Networks of the pipeline in ``folder``, without loading weights.

    Raises:
        OSError, ValueError: if the folder contains no pipeline.
    """
    path = folder / SPEC_FILE
    return SPEC_ADAPTER.validate_python(from_json(path.read_text("utf-8"), path))


class PyfuncModel:
    """Model for ``mlflow.pyfunc``: descriptors of patches."""

    def __init__(self, pipeline: LoadedPipeline) -> None:
        self.pipeline = pipeline

    def predict(self, model_input: Any, params: Any = None) -> Float[np.ndarray, "n d"]:
        """Descriptors (N, d) of patches (N, 32, 32) in gray levels 0…255, N ≥ 0, array or lists.

        Raises:
            UserError: if the patches have another shape or are not gray levels.
        """
        if isinstance(model_input, dict) and len(model_input) == 1:
            (model_input,) = model_input.values()
        return describe_any(self.pipeline, validate_patches(as_array(model_input)))


def describe_any(
    pipeline: nn.Module, patches: Num[np.ndarray, "n 32 32"], *, device: torch.device | None = None
) -> Float[np.ndarray, "n d"]:
    """Descriptors of any number of patches, including none, on the device of ``pipeline``."""
    if not len(patches):
        one = describe(pipeline, np.zeros((1, SIDE, SIDE), np.uint8), device=device or "cpu")
        return one[:0]
    batch = CPU_BATCH if device is None or device.type == "cpu" else 1024
    return describe(pipeline, patches, batch=batch, device=device or "cpu")


def as_array(numbers: Any) -> Num[np.ndarray, "..."]:
    """Array from an array or nested lists.

    Raises:
        UserError: if rows differ in length.
    """
    try:
        found = np.asarray(numbers)
        return found.reshape(0, SIDE, SIDE) if found.shape == (0,) else found
    except ValueError as error:
        raise UserError(
            f"patches must have the shape (N, {SIDE}, {SIDE}), but rows differ in length"
        ) from error


def validate_patches(
    patches: Num[np.ndarray, "..."], *, first: int = 0
) -> Num[np.ndarray, "n 32 32"]:
    """Check patches and convert them to uint8 or float32.

    Args:
        patches: array of patches.
        first: number of the first patch for error messages, if this is a chunk.

    Raises:
        UserError: if they are not of shape (N, 32, 32) with numbers in 0…255.
    """
    if patches.ndim != 3 or patches.shape[1:] != (SIDE, SIDE):
        raise UserError(f"patches must have the shape (N, {SIDE}, {SIDE}), got {patches.shape}")
    if patches.dtype == np.uint8:
        return patches
    numbers = _as_float32(patches)
    if not len(numbers):
        return numbers
    low, high = float(numbers.min()), float(numbers.max())  # NaN if any is NaN
    if not (low >= 0 and high <= 255):
        raise UserError(
            f"patches must be gray levels 0…255, but contain {_first_invalid(numbers, first)}; "
            "scale them first"
        )
    if 0 < high <= 1 and not np.array_equal(numbers, numbers.round()):
        raise UserError("patches must be gray levels 0…255, but are 0…1; multiply them by 255")
    return numbers


def _as_float32(patches: np.ndarray) -> Float[np.ndarray, "n 32 32"]:
    # MLflow passes JSON as objects under a signature that accepts any numbers.
    if patches.dtype.kind not in "uifO":
        raise UserError(f"patches must be numbers, got {patches.dtype}; save them as uint8")
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which is out of range
            return patches.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UserError("patches must be numbers, got something else; correct the rows") from error


def _first_invalid(numbers: Float[np.ndarray, "n 32 32"], first: int) -> str:
    """First value that is not a gray level, and its position."""
    bad = ~((numbers >= 0) & (numbers <= 255))
    patch, row, column = (int(i[0]) for i in bad.nonzero())
    return f"{numbers[patch, row, column]:g} in patch {first + patch}, row {row}, column {column}"


def _uninitialized(spec: PipelineSpec | EnsembleSpec) -> Pipeline | Ensemble:
    """Build the networks with uninitialized weights; no file is read."""
    if isinstance(spec, EnsembleSpec):
        return Ensemble(
            [_build_pipeline(member) for member in spec.members],
            descriptor_dim=spec.descriptor_dim,
            unit_norm=spec.combine == "mean",
        )
    return _build_pipeline(spec)


def _build_pipeline(spec: PipelineSpec) -> Pipeline:
    denoiser = None if spec.denoiser is None else _build_denoiser(spec.denoiser)
    descriptor = build_descriptor(spec.descriptor, seed=0)
    compression = (
        None
        if spec.compression is None
        else CompressionLayer(spec.descriptor.descriptor_dim, spec.compression.descriptor_dim)
    )
    return Pipeline(denoiser=denoiser, descriptor=descriptor, compression=compression)


def _build_denoiser(settings: Denoiser) -> nn.Module:
    """Build a denoiser; a frozen backbone's weights come from the artifact, not its own file.

    That file was on the machine of the training, and need not exist here.
    """
    if isinstance(settings, DnCNNTransfer):
        front = build_denoiser(settings.front, seed=0)
        return denoisers.FrozenBackbone(front=front, head=build_denoiser(settings.head, seed=0))
    return build_denoiser(settings, seed=0)


def _load_pyfunc(data_path: str) -> PyfuncModel:
    """Entry point that MLflow looks for in a loader module."""
    return PyfuncModel(load_pipeline(Path(data_path)))
