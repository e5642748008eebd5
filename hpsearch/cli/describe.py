"""``hpsearch describe``: patches in, descriptors out."""

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out

Model = Annotated[
    str,
    typer.Argument(
        help="models:/NAME@champion, models:/NAME/VERSION, a folder of `train`, or SEARCH/TRIAL."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that is there.")]


@app.command(rich_help_panel="Models")
def describe(
    model: Model,
    patches: Annotated[
        str,
        typer.Argument(
            help="mini, tiny, a patch store, a folder of strips (SEQUENCE/ref.png …), a folder of "
            "patches (PNG, 32×32 or 65×65), or a .npy file (N×32×32)."
        ),
    ],
    to: Annotated[
        Path,
        typer.Option(help="A .npy file, a .parquet file, or a folder for the official layout."),
    ],
    clean: Annotated[
        bool, typer.Option("--clean", help="Clean patches, where there are noisy ones too.")
    ] = False,
    force: Force = False,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Write descriptors of patches with a model.

    The name says the form: .npy holds a row a patch (N×128, float32), .parquet also sequence,
    point and view, a folder the official benchmark's TO/SEQUENCE/VIEW.csv. Patches are read as
    they are described, so there may be more of them than memory.

    Example: hpsearch describe models:/patch-descriptor@champion mini --to descriptors
    """
    from hpsearch.evaluation.descriptor_outputs import refuse_existing

    refuse_existing(to, force=force)

    from hpsearch.cli.describing import describe_source, open_source, refuse_layout
    from hpsearch.promotion.examination import pipeline_of
    from hpsearch.search.workspace import Workspace

    workspace = Workspace(home)
    pipeline = pipeline_of(model, workspace, uri=tracking_uri)
    source = open_source(patches, workspace, clean=clean)
    refuse_layout(source, to)
    out.print(describe_source(pipeline, source, to, model=model, force=force), soft_wrap=True)
