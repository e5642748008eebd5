"""A pipeline as files, and as MLflow's Python function.

The files are the settings as JSON and the weights as a state dict, read with ``weights_only``: no
code lies in the artifact and none is run from it. The code is this installed package's.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, TypeAdapter
from torch import nn

from hpsearch.config.base import FrozenConfig
from hpsearch.config.networks import AnyDenoiser, AnyDescriptor, Denoiser, DnCNNTransfer
from hpsearch.errors import UserError
from hpsearch.models import denoisers
from hpsearch.models.build import build_denoiser, build_descriptor
from hpsearch.models.ensemble import Combine, Ensemble
from hpsearch.models.pipeline import Pipeline, describe
from hpsearch.patch_views import SIDE
from hpsearch.schema import NewerSchema, from_json, to_json
from hpsearch.shapes import Float, Num

SPEC_FILE, WEIGHTS_FILE = "pipeline.json", "weights.pt"
CPU_BATCH = 64
"""Patches a forward pass on a CPU: the maps of more of them leave a core's cache."""


class PipelineSpec(FrozenConfig):
    """Which networks a saved pipeline consists of."""

    version: Literal[1] = Field(default=1, exclude=True)
    """Read from models of 0.1.0, and no longer written."""
    denoiser: AnyDenoiser | None
    descriptor: AnyDescriptor


class EnsembleSpec(FrozenConfig):
    """Which pipelines a saved ensemble consists of, and how they are combined."""

    version: Literal[1] = Field(default=1, exclude=True)
    """As of ``PipelineSpec``."""
    members: tuple[PipelineSpec, ...] = Field(min_length=2)
    combine: Combine
    dimensions: int = Field(ge=2)


AnySpec = PipelineSpec | EnsembleSpec
SPEC_ADAPTER: TypeAdapter[AnySpec] = TypeAdapter(AnySpec)


def save_pipeline(pipeline: nn.Module, spec: AnySpec, folder: Path) -> None:
    """Write settings and weights into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC_FILE).write_text(to_json(spec.model_dump(mode="json"), indent=1))
    torch.save({name: x.cpu() for name, x in pipeline.state_dict().items()}, folder / WEIGHTS_FILE)


def load_pipeline(folder: Path) -> Pipeline | Ensemble:
    """The pipeline in ``folder``, on the CPU, in evaluation mode.

    Raises:
        UserError: if it was written by another version, is damaged, or holds anything but weights.
    """
    try:
        pipeline = _uninitialized(read_spec(folder))
        weights = torch.load(folder / WEIGHTS_FILE, map_location="cpu", weights_only=True)
        pipeline.load_state_dict(weights)
    except NewerSchema:
        raise
    except Exception as error:  # a reader of crafted bytes may raise anything
        raise UserError(
            f"{folder} holds no pipeline that this version reads; install the version of hpsearch "
            "that wrote it, or register the model again"
        ) from error
    # The stubs want a channel order for tensors, not modules.
    return pipeline.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def read_spec(folder: Path) -> AnySpec:
    """Which networks the pipeline in ``folder`` consists of.

    Raises:
        OSError, ValueError: if there is none.
    """
    path = folder / SPEC_FILE
    return SPEC_ADAPTER.validate_python(from_json(path.read_text(), path))


class PyfuncModel:
    """What ``mlflow.pyfunc`` calls."""

    def __init__(self, pipeline: Pipeline | Ensemble) -> None:
        self.pipeline = pipeline

    def predict(self, model_input: Any, params: Any = None) -> Float[np.ndarray, "n d"]:
        """Descriptors of patches (N, 32, 32) in gray levels 0…255: arrays of any number, or lists.

        Raises:
            UserError: if the patches have another shape, or are no gray levels.
        """
        if isinstance(model_input, dict) and len(model_input) == 1:
            (model_input,) = model_input.values()
        return describe_any(self.pipeline, validate_patches(as_array(model_input)))


def describe_any(
    pipeline: nn.Module, patches: Num[np.ndarray, "n 32 32"], *, device: torch.device | None = None
) -> Float[np.ndarray, "n d"]:
    """Descriptors of any number of patches, none included, on the device where ``pipeline`` is."""
    if not len(patches):
        one = describe(pipeline, np.zeros((1, SIDE, SIDE), np.uint8), device=device or "cpu")
        return one[:0]
    batch = CPU_BATCH if device is None or device.type == "cpu" else 1024
    return describe(pipeline, patches, batch=batch, device=device or "cpu")


def as_array(numbers: Any) -> Num[np.ndarray, "..."]:
    """Nested lists or an array, as an array.

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
    """Patches as uint8 or float32.

    Args:
        first: number of the first of them, where they are a part.

    Raises:
        UserError: if they are not (N, 32, 32) numbers in 0…255.
    """
    if patches.ndim != 3 or patches.shape[1:] != (SIDE, SIDE):
        raise UserError(f"patches must have the shape (N, {SIDE}, {SIDE}), got {patches.shape}")
    if patches.dtype == np.uint8:
        return patches
    numbers = _as_float32(patches)
    if not len(numbers):
        return numbers
    low, high = float(numbers.min()), float(numbers.max())  # NaN if there is any
    if not (low >= 0 and high <= 255):
        raise UserError(
            f"patches must be gray levels 0…255, but hold {_first_invalid(numbers, first)}; "
            "scale them first"
        )
    if 0 < high <= 1 and not np.array_equal(numbers, numbers.round()):
        raise UserError("patches must be gray levels 0…255, these are 0…1; multiply them by 255")
    return numbers


def _as_float32(patches: np.ndarray) -> Float[np.ndarray, "n 32 32"]:
    # Objects are what JSON becomes under a signature that takes any numbers.
    if patches.dtype.kind not in "uifO":
        raise UserError(f"patches must be numbers, got {patches.dtype}; save them as uint8")
    try:
        with np.errstate(over="ignore"):  # becomes infinity, which is out of range
            return patches.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise UserError("patches must be numbers, got something else; mend the rows") from error


def _first_invalid(numbers: Float[np.ndarray, "n 32 32"], first: int) -> str:
    """The first value that is no gray level, and where."""
    bad = ~((numbers >= 0) & (numbers <= 255))
    patch, row, column = (int(i[0]) for i in bad.nonzero())
    return f"{numbers[patch, row, column]:g} in patch {first + patch}, row {row}, column {column}"


def _uninitialized(spec: AnySpec) -> Pipeline | Ensemble:
    """The networks with weights that are still to be filled in; no file is read."""
    if isinstance(spec, EnsembleSpec):
        return Ensemble(
            [_build_pipeline(member) for member in spec.members],
            descriptor_dim=spec.dimensions,
            unit_norm=spec.combine == "mean",
        )
    return _build_pipeline(spec)


def _build_pipeline(spec: PipelineSpec) -> Pipeline:
    denoiser = None if spec.denoiser is None else _build_denoiser(spec.denoiser)
    return Pipeline(denoiser=denoiser, descriptor=build_descriptor(spec.descriptor, seed=0))


def _build_denoiser(settings: Denoiser) -> nn.Module:
    """A denoiser; the front of a transferred one comes with the other weights, not from its file.

    That file lay where the model was trained, and need not exist here.
    """
    if isinstance(settings, DnCNNTransfer):
        front = build_denoiser(settings.front, seed=0)
        return denoisers.FrozenBackbone(front=front, head=build_denoiser(settings.head, seed=0))
    return build_denoiser(settings, seed=0)


def _load_pyfunc(data_path: str) -> PyfuncModel:
    """Entry point that MLflow looks for in a loader module."""
    return PyfuncModel(load_pipeline(Path(data_path)))
