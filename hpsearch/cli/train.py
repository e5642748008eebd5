"""``hpsearch train``: one trial, without Ray."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hpsearch.cli.app import HOME, Home, app, err, out
from hpsearch.config import TrialConfig
from hpsearch.config.flat import title
from hpsearch.errors import UserError
from hpsearch.models.serving import save_pipeline
from hpsearch.search.winner import recipe
from hpsearch.search.workspace import Workspace
from hpsearch.training.artifacts import Artifacts
from hpsearch.training.loop import Report
from hpsearch.training.trial import CHECKPOINT, Job, Trial, prepare_trial

REPORTS = 10


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
    config = read_config(trial)
    workspace = Workspace(home)
    store = workspace.store(data)
    job = Job(
        store=store,
        split=store.split(split),
        artifacts=Artifacts(str((home / "artifacts").absolute())),
        report_every=max(1, config.patches // REPORTS),
        validation_points=128,
        sequences=tuple(name for name in sequences.split(",") if name),
        device=device,
    )
    job.training_patches()
    out.print(title(config))
    running = prepare_trial(config, job)
    to = to or home / "trained" / trial.stem
    if (to / CHECKPOINT).exists():
        running.load(to)
        out.print(f"going on from {running.progress.seen:,} patches")
    last = _follow(running, to)
    if last is not None and last.status != "completed":
        raise UserError(f"the trial {last.status}: {last.reason}; try a smaller learning rate")
    save_pipeline(running.pipeline(), recipe(config), to)
    out.print(f"saved {to}; score it with:  hpsearch evaluate {to} --data {data}", soft_wrap=True)


def read_config(path: Path) -> TrialConfig:
    """A TrialConfig from a JSON file.

    Raises:
        UserError: if there is no such file.
        ValidationError: if it is no TrialConfig.
    """
    if not path.is_file():
        raise UserError(f"there is no trial at {path}; pass the path of a TrialConfig as JSON")
    return TrialConfig.model_validate_json(path.read_text())


def _follow(running: Trial, to: Path) -> Report | None:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    last = None
    with Progress(*columns, console=err, disable=not err.is_terminal) as bar:
        budget = running.task.config.patches
        task = bar.add_task("training", total=budget, completed=running.progress.seen)
        for last in running.reports():
            running.save(to)
            bar.update(task, completed=last.seen)
            loss, score = last.metrics.get("train/loss"), last.metrics.get("val/mAP", 0.0)
            shown = "" if loss is None else f"  loss {loss:.3f}  mAP {score:.3f}"
            out.print(f"{last.seen:>10,} patches{shown}")
    return last
