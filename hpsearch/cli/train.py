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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or xla.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, float32 or bfloat16, of training's convolutions.")
    ] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compiled", help="torch.compile: pays on long budgets.")
    ] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Refuse operations that vary between runs.")
    ] = False,
    home: Home = HOME,
) -> None:
    """Train one trial on this machine, with no Ray; the same JSON stands in every MLflow run.

    Run again with the same --to, it goes on from its checkpoint.

    Example: hpsearch train config.json --to runs/trained
    """
    from hpsearch.cli.training import job_here, read_config, train_here
    from hpsearch.config import Computing
    from hpsearch.search.workspace import Workspace

    computing = Computing.model_validate(
        {
            "device": device,
            "precision": precision,
            "compiled": compiled,
            "deterministic": deterministic,
        }
    )
    config = read_config(trial)
    workspace = Workspace(home)
    wanted = tuple(name for name in sequences.split(",") if name)
    job = job_here(config, workspace, data=data, split=split, sequences=wanted, computing=computing)
    train_here(config, job, to or home / "trained" / trial.stem)
