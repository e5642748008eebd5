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

from hpsearch.config.base import Setting
from hpsearch.config.networks import AnyDenoiser, AnyDescriptor, Denoiser, DnCNNTransfer
from hpsearch.errors import UserError
from hpsearch.models import denoisers
from hpsearch.models.build import build_denoiser, build_descriptor
from hpsearch.models.ensemble import Combine, Ensemble
from hpsearch.models.pipeline import Pipeline, describe
from hpsearch.patch_views import SIDE
from hpsearch.schema import NewerSchema, from_json, to_json
from hpsearch.shapes import Float, Num

SETTINGS, WEIGHTS = "pipeline.json", "weights.pt"
ON_A_CORE = 64
"""Patches a forward pass on a CPU: the maps of more of them leave a core's cache."""


class Recipe(Setting):
    """Which networks a saved pipeline consists of."""

    version: Literal[1] = Field(default=1, exclude=True)
    """Read from models of 0.1.0, and no longer written."""
    denoiser: AnyDenoiser | None
    descriptor: AnyDescriptor


class EnsembleRecipe(Setting):
    """Which pipelines a saved ensemble consists of, and how they are combined."""

    version: Literal[1] = Field(default=1, exclude=True)
    """As of ``Recipe``."""
    members: tuple[Recipe, ...] = Field(min_length=2)
    combine: Combine
    dimensions: int = Field(ge=2)


AnyRecipe = Recipe | EnsembleRecipe
RECIPES: TypeAdapter[AnyRecipe] = TypeAdapter(AnyRecipe)


def save_pipeline(pipeline: nn.Module, recipe: AnyRecipe, folder: Path) -> None:
    """Write settings and weights into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(to_json(recipe.model_dump(mode="json"), indent=1))
    torch.save({name: x.cpu() for name, x in pipeline.state_dict().items()}, folder / WEIGHTS)


def load_pipeline(folder: Path) -> Pipeline | Ensemble:
    """The pipeline in ``folder``, on the CPU, in evaluation mode.

    Raises:
        UserError: if it was written by another version, is damaged, or holds anything but weights.
    """
    try:
        pipeline = _blank(read_recipe(folder))
        weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
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


def read_recipe(folder: Path) -> AnyRecipe:
    """Which networks the pipeline in ``folder`` consists of.

    Raises:
        OSError, ValueError: if there is none.
    """
    path = folder / SETTINGS
    return RECIPES.validate_python(from_json(path.read_text(), path))


class ServedPipeline:
    """What ``mlflow.pyfunc`` calls."""

    def __init__(self, pipeline: Pipeline | Ensemble) -> None:
        self.pipeline = pipeline

    def predict(self, model_input: Any, params: Any = None) -> Float[np.ndarray, "n d"]:
        """Descriptors of patches (N, 32, 32) in grey levels 0…255: arrays of any number, or lists.

        Raises:
            UserError: if the patches have another shape, or are no grey levels.
        """
        if isinstance(model_input, dict) and len(model_input) == 1:
            (model_input,) = model_input.values()
        return describe_any(self.pipeline, checked(as_array(model_input)))


def describe_any(
    pipeline: nn.Module, patches: Num[np.ndarray, "n 32 32"], *, device: torch.device | None = None
) -> Float[np.ndarray, "n d"]:
    """Descriptors of any number of patches, none included, on the device where ``pipeline`` is."""
    if not len(patches):
        one = describe(pipeline, np.zeros((1, SIDE, SIDE), np.uint8), device=device or "cpu")
        return one[:0]
    batch = ON_A_CORE if device is None or device.type == "cpu" else 1024
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


def checked(patches: Num[np.ndarray, "..."], *, first: int = 0) -> Num[np.ndarray, "n 32 32"]:
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
            f"patches must be grey levels 0…255, but hold {_wrong(numbers, first)}; "
            "scale them first"
        )
    if 0 < high <= 1 and not np.array_equal(numbers, numbers.round()):
        raise UserError("patches must be grey levels 0…255, these are 0…1; multiply them by 255")
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


def _wrong(numbers: Float[np.ndarray, "n 32 32"], first: int) -> str:
    """The first value that is no grey level, and where."""
    bad = ~((numbers >= 0) & (numbers <= 255))
    patch, row, column = (int(i[0]) for i in bad.nonzero())
    return f"{numbers[patch, row, column]:g} in patch {first + patch}, row {row}, column {column}"


def _blank(recipe: AnyRecipe) -> Pipeline | Ensemble:
    """The networks with weights that are still to be filled in; no file is read."""
    if isinstance(recipe, EnsembleRecipe):
        return Ensemble(
            [_pipeline(member) for member in recipe.members],
            dimensions=recipe.dimensions,
            unit_norm=recipe.combine == "mean",
        )
    return _pipeline(recipe)


def _pipeline(recipe: Recipe) -> Pipeline:
    denoiser = None if recipe.denoiser is None else _denoiser(recipe.denoiser)
    return Pipeline(denoiser=denoiser, descriptor=build_descriptor(recipe.descriptor, seed=0))


def _denoiser(settings: Denoiser) -> nn.Module:
    """A denoiser; the front of a transferred one comes with the other weights, not from its file.

    That file lay where the model was trained, and need not exist here.
    """
    if isinstance(settings, DnCNNTransfer):
        front = build_denoiser(settings.front, seed=0)
        return denoisers.FrozenFront(front=front, head=build_denoiser(settings.head, seed=0))
    return build_denoiser(settings, seed=0)


def _load_pyfunc(data_path: str) -> ServedPipeline:
    """Entry point that MLflow looks for in a loader module."""
    return ServedPipeline(load_pipeline(Path(data_path)))
