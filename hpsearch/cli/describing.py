"""From patches in a file or a store to descriptors on disk."""

from pathlib import Path
from typing import Any

import numpy as np

from hpsearch.data.store import PatchStore
from hpsearch.errors import UserError
from hpsearch.evaluation.descriptor_files import write_descriptors
from hpsearch.models.serving import checked
from hpsearch.tracking.loading import load_descriptor
from hpsearch.tracking.registry import quieten_mlflow


def describe_file(model: str, patches: Path, to: Path, *, uri: str) -> str:
    """A .npy file of patches becomes one of descriptors; what to say about it."""
    array = read_array(patches)
    quieten_mlflow()
    found = load_descriptor(model, uri).predict(array)
    np.save(to, found)
    return f"{len(found):,} descriptors of {found.shape[1]} numbers in {to}"


def describe_store(model: str, store: PatchStore, to: Path, *, uri: str, clean: bool) -> str:
    """A store becomes the official benchmark's layout; what to say about it."""
    quieten_mlflow()
    function = load_descriptor(model, uri)
    views = {name: _views(function, store, i, clean=clean) for i, name in enumerate(store.names)}
    write_descriptors(to, views)
    return f"{16 * sum(store.counts):,} descriptors in {to}/SEQUENCE/VIEW.csv"


def read_array(path: Path) -> np.ndarray:
    """Patches from a .npy file.

    Raises:
        UserError: if it is missing, damaged, or holds something else.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable .npy file; save patches with numpy.save") from error
    return checked(array)


def _views(function: Any, store: PatchStore, sequence: int, *, clean: bool) -> np.ndarray:
    first = int(store.starts[sequence])
    pixels = (store.clean if clean else store.noisy)[first : first + store.counts[sequence]]
    found = function.predict(np.array(pixels.reshape(-1, 32, 32)))
    return found.reshape(len(pixels), 16, -1)
