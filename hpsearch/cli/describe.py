"""``hpsearch describe``: patches in, descriptors out."""

import re
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out
from hpsearch.data.store import PatchStore
from hpsearch.errors import UserError
from hpsearch.evaluation.descriptor_files import write_descriptors
from hpsearch.models.serving import checked
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.registry import load_descriptor, quieten_mlflow


@app.command(rich_help_panel="Models")
def describe(
    model: Annotated[str, typer.Argument(help="models:/NAME@champion, or models:/NAME/VERSION.")],
    patches: Annotated[
        str, typer.Argument(help="A .npy file (N×32×32), a patch store, mini or tiny.")
    ],
    to: Annotated[Path, typer.Option(help="A .npy file, or a folder for official CSVs.")],
    clean: Annotated[
        bool, typer.Option("--clean", help="Describe a store's clean patches.")
    ] = False,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Write descriptors of patches with a registered model.

    A .npy file becomes a .npy file (N×128); a store becomes the official benchmark's layout,
    TO/SEQUENCE/VIEW.csv, one row a patch.

    Example: hpsearch describe models:/patch-descriptor@champion mini --to descriptors
    """
    if not re.fullmatch(r"models:/[^/@]+(/\d+|@[\w-]+)", model):
        raise UserError(f"{model!r} is no model; write models:/NAME@champion or models:/NAME/3")
    quieten_mlflow()
    workspace = Workspace(home)
    if patches.endswith(".npy"):
        array = read_array(Path(patches))
        found = load_descriptor(model, workspace.tracking(tracking_uri).uri).predict(array)
        np.save(to, found)
        out.print(f"{len(found):,} descriptors of {found.shape[1]} numbers in {to}")
        return
    store = workspace.store(patches)
    function = load_descriptor(model, workspace.tracking(tracking_uri).uri)
    views = {name: _views(function, store, i, clean=clean) for i, name in enumerate(store.names)}
    write_descriptors(to, views)
    out.print(f"{16 * sum(store.counts):,} descriptors in {to}/SEQUENCE/VIEW.csv", soft_wrap=True)


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


def _views(function, store: PatchStore, sequence: int, *, clean: bool) -> np.ndarray:
    first = int(store.starts[sequence])
    pixels = (store.clean if clean else store.noisy)[first : first + store.counts[sequence]]
    found = function.predict(np.array(pixels.reshape(-1, 32, 32)))
    return found.reshape(len(pixels), 16, -1)
