"""``hpsearch describe``: patches in, descriptors out."""

import re
from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out
from hpsearch.errors import UserError


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

    from hpsearch.cli.describing import describe_file, describe_store
    from hpsearch.search.workspace import Workspace

    workspace = Workspace(home)
    uri = workspace.tracking(tracking_uri).uri
    if patches.endswith(".npy"):
        out.print(describe_file(model, Path(patches), to, uri=uri), soft_wrap=True)
    else:
        store = workspace.store(patches)
        out.print(describe_store(model, store, to, uri=uri, clean=clean), soft_wrap=True)
