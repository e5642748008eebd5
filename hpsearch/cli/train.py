"""``hpsearch train``: one trial, without Ray."""

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, app


@app.command(rich_help_panel="Search")
def train(
    trial: Annotated[Path, typer.Argument(help="A TrialConfig as JSON.")],
    to: Annotated[Path | None, typer.Option(help="Folder for checkpoint and model.")] = None,
    data: Annotated[str, typer.Option(help="mini, tiny, or the path of a store.")] = "mini",
    split: Annotated[str, typer.Option(help="auto, a, b, c, illum, view, mini, seeded.")] = "auto",
    sequences: Annotated[str, typer.Option(help="Train on these only, with commas.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    home: Home = HOME,
) -> None:
    """Train one trial on this machine, with no Ray; the same JSON stands in every MLflow run.

    Run again with the same --to, it goes on from its checkpoint.

    Example: hpsearch train config.json --to runs/trained
    """
    from hpsearch.cli.training import job_here, read_config, train_here
    from hpsearch.search.workspace import Workspace

    config = read_config(trial)
    workspace = Workspace(home)
    wanted = tuple(name for name in sequences.split(",") if name)
    job = job_here(config, workspace, data=data, split=split, sequences=wanted, device=device)
    train_here(config, job, to or home / "trained" / trial.stem)
