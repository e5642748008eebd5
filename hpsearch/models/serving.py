"""A pipeline as files, and as MLflow's Python function.

The files are the settings as JSON and the weights as a state dict, read with ``weights_only``: no
code lies in the artifact and none is run from it. The code is this installed package's.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from hpsearch.config.base import Setting
from hpsearch.config.networks import AnyDenoiser, AnyDescriptor
from hpsearch.errors import UserError
from hpsearch.models.build import build_denoiser, build_descriptor
from hpsearch.models.pipeline import Pipeline, describe
from hpsearch.shapes import Float, Num

SETTINGS, WEIGHTS = "pipeline.json", "weights.pt"


class Recipe(Setting):
    """Which networks a saved pipeline consists of."""

    version: Literal[1] = 1
    denoiser: AnyDenoiser | None
    descriptor: AnyDescriptor


def save_pipeline(pipeline: Pipeline, recipe: Recipe, folder: Path) -> None:
    """Write settings and weights into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(recipe.model_dump_json(indent=1))
    torch.save({name: x.cpu() for name, x in pipeline.state_dict().items()}, folder / WEIGHTS)


def load_pipeline(folder: Path) -> Pipeline:
    """The pipeline in ``folder``, on the CPU, in evaluation mode.

    Raises:
        UserError: if it was written by another version, or is damaged.
    """
    try:
        recipe = Recipe.model_validate_json((folder / SETTINGS).read_text())
        weights = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{folder} holds no pipeline that this version reads; install the version of hpsearch "
            "that wrote it, or register the model again"
        ) from error
    denoiser = None if recipe.denoiser is None else build_denoiser(recipe.denoiser, seed=0)
    descriptor = build_descriptor(recipe.descriptor, seed=0)
    pipeline = Pipeline(denoiser=denoiser, descriptor=descriptor)
    pipeline.load_state_dict(weights)
    return pipeline.eval()


class ServedPipeline:
    """What ``mlflow.pyfunc`` calls."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def predict(self, model_input: Any, params: Any = None) -> Float[np.ndarray, "n 128"]:
        """Descriptors of patches (N, 32, 32) in grey levels 0…255, uint8 or float32.

        Raises:
            UserError: if the patches have another shape, or hold NaN.
        """
        if isinstance(model_input, dict) and len(model_input) == 1:
            (model_input,) = model_input.values()
        return describe(self.pipeline, checked(np.asarray(model_input)))


def checked(patches: Num[np.ndarray, "..."]) -> Num[np.ndarray, "n 32 32"]:
    """Patches as uint8 or float32.

    Raises:
        UserError: if they are not (N, 32, 32) numbers in 0…255.
    """
    if patches.ndim != 3 or patches.shape[1:] != (32, 32) or len(patches) == 0:
        raise UserError(f"patches must have the shape (N, 32, 32), N ≥ 1, got {patches.shape}")
    if patches.dtype == np.uint8:
        return patches
    numbers = patches.astype(np.float32)
    if not (np.isfinite(numbers).all() and numbers.min() >= 0 and numbers.max() <= 255):
        raise UserError("patches must be grey levels 0…255, without NaN; scale them first")
    return numbers


def _load_pyfunc(data_path: str) -> ServedPipeline:
    """Entry point that MLflow looks for in a loader module."""
    return ServedPipeline(load_pipeline(Path(data_path)))
