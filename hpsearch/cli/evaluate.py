"""``hpsearch evaluate``: the official protocol on a model or on descriptor files."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out


class Given(StrEnum):
    """Which patches a model is given."""

    noisy = "noisy"
    clean = "clean"
    both = "both"


@app.command(rich_help_panel="Models")
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="models:/NAME@ALIAS, a folder of `train`, SEARCH/TRIAL, or a folder of "
            "descriptors DESC/SEQUENCE/VIEW.csv."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="mini (unless told otherwise), tiny, or a store's path.")
    ] = None,
    split: Annotated[str, typer.Option(help="auto, a, b, c, illum, view, mini, seeded.")] = "auto",
    tasks: Annotated[Path | None, typer.Option(help="Folder of official task files.")] = None,
    given: Annotated[Given, typer.Option("--input", help="Which patches it is given.")] = (
        Given.noisy
    ),
    against: Annotated[
        str | None, typer.Option(help="Another model: the difference, with its interval.")
    ] = None,
    yardsticks: Annotated[
        bool, typer.Option("--yardsticks", help="Also normalised pixels, SIFT and RootSIFT.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder for scores.json, figures, index.html.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--to", help="The first row's scores alone, as JSON.")
    ] = None,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Score a model on the test sequences: verification, matching, retrieval.

    With --tasks, on the benchmark's own lists; descriptors in the official layout then need no
    patches.

    Example: hpsearch evaluate models:/patch-descriptor@champion --data mini --out scored
    """
    from hpsearch.cli.evaluating import Request, keep, run, show
    from hpsearch.search.workspace import Workspace

    asked = Request(
        models=tuple(name for name in (model, against) if name is not None),
        data=data,
        split=split,
        tasks=tasks,
        given=("noisy", "clean") if given == Given.both else (given.value,),
        yardsticks=yardsticks,
    )
    found = run(asked, Workspace(home), uri=tracking_uri)
    show(found)
    if json_file is not None:
        json_file.write_text(json.dumps(next(iter(found.rows.values())).to_dict()))
        out.print(f"\n{json_file}", soft_wrap=True)
    if to is not None:
        keep(found, to)
