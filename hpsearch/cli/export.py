"""``hpsearch export``: a model for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out
from hpsearch.cli.describe import Force, Model
from hpsearch.errors import UserError


@app.command(rich_help_panel="Models")
def export(
    model: Model,
    onnx: Annotated[Path, typer.Option("--onnx", help="The ONNX file to write.")],
    force: Force = False,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Write a model as ONNX, and compare the two before the file is handed out.

    The file takes any number of patches at once: ``patches``, float32 (n, 32, 32) in grey levels
    0…255, to ``descriptors``. It is not kept if onnxruntime's descriptors differ by more than 1e-4.

    Example: hpsearch export models:/patch-descriptor@champion --onnx descriptor.onnx
    """
    from hpsearch.evaluation.descriptor_outputs import drafted, refuse_existing
    from hpsearch.models.export import PARITY, export_onnx, refuse_without_onnx

    if onnx.suffix != ".onnx":
        raise UserError(f"{onnx} is no ONNX file; give --onnx a name that ends in .onnx")
    refuse_existing(onnx, force=force)
    refuse_without_onnx()

    from hpsearch.promotion.examination import pipeline_of
    from hpsearch.search.workspace import Workspace

    pipeline = pipeline_of(model, Workspace(home), uri=tracking_uri)
    with drafted(onnx, force=force) as draft:
        found = export_onnx(pipeline, draft, facts={"hpsearch.model": model})
    out.print(
        f"{onnx}: onnxruntime's descriptors differ by at most {found:.1e} (allowed {PARITY:g})",
        soft_wrap=True,
    )
