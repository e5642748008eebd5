"""Model in memory, for patches in arrays."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.models.ensemble import output_dim
from hpsearch.models.serialization import LoadedPipeline, as_array, describe_any
from hpsearch.promotion.model_evaluation import load_pipeline_by_ref
from hpsearch.search.workspace import Workspace
from hpsearch.shapes import Float
from hpsearch.training.devices import choose_device, torch_threads
from hpsearch.workflows.describe_patches import to_32x32

REGISTERED = re.compile(r"(?P<name>[^@:/\s]+)@(?P<version>\d+|[A-Za-z][\w-]*)")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """Descriptor that was loaded, with its denoiser if it has one.

    Example:
        >>> import numpy as np
        >>> model = load_model("hpsearch-base")
        >>> model.describe(np.full((2, 32, 32), 128, np.uint8)).shape
        (2, 128)
    """

    name: str
    """Reference that it was loaded by."""
    pipeline: LoadedPipeline
    """Network of torch, on the device that ``describe`` uses."""

    @property
    def descriptor_dim(self) -> int:
        """Length of a descriptor."""
        return output_dim(self.pipeline)

    def describe(self, patches: Any, *, threads: int = 1) -> Float[np.ndarray, "n d"]:
        """Describe patches.

        Args:
            patches: array of shape (N, 32, 32) with gray levels 0…255, or (N, 65, 65) of uint8,
                which is reduced to 32×32.
            threads: torch's threads on a CPU.

        Returns:
            Descriptors (N, d), float32.

        Raises:
            UserError: if the patches have another shape or are not gray levels, or the weights of
                the model are damaged.
        """
        pixels = to_32x32(as_array(patches))
        with torch_threads(threads):
            found = describe_any(self.pipeline, pixels, device=choose_device("auto"))
        if not np.isfinite(found).all():
            raise UserError(
                f"{self.name} returns NaN for these patches, so its weights are damaged; use "
                "another model",
                code="damaged-weights",
            )
        return found


def load_model(
    ref: str, *, home: str | Path = DEFAULT_HOME, tracking_uri: str | None = None
) -> LoadedModel:
    """Load a model for patches in arrays.

    Args:
        ref: ``patch-descriptor@champion`` or ``patch-descriptor@3`` of the registry (also as
            ``models:/patch-descriptor@champion``), ``hpsearch-base``, a folder of ``hpsearch
            train``, or ``SEARCH/TRIAL``.
        home: folder of searches and of MLflow's database.
        tracking_uri: address of MLflow; SQLite in ``home`` if None.

    Raises:
        UserError: if the reference is none of these, or the model cannot be loaded.
    """
    workspace, address = Workspace(Path(home)), ref
    if found := REGISTERED.fullmatch(ref):
        name, version = found["name"], found["version"]
        address = f"models:/{name}/{version}" if version.isdigit() else f"models:/{name}@{version}"
    workspace.check_model(address)
    pipeline = load_pipeline_by_ref(address, workspace, uri=tracking_uri)
    return LoadedModel(ref, pipeline.to(choose_device("auto")))
