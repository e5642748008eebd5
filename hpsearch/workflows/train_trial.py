"""One trial on this machine, with a progress bar and a readable end."""

from pathlib import Path

from pydantic import ValidationError
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hpsearch.cli.app import validation_sentence
from hpsearch.config import Computing, TrialConfig
from hpsearch.config.formatting import title
from hpsearch.console.output import err, out
from hpsearch.errors import UserError
from hpsearch.models.serialization import save_pipeline
from hpsearch.promotion.final_evaluation import recipe
from hpsearch.search.workspace import Workspace
from hpsearch.training.loop import Report
from hpsearch.training.trial import CHECKPOINT, Job, Trial, prepare_trial
from hpsearch.untrusted import reading

REPORTS = 10


def job_here(
    config: TrialConfig,
    workspace: Workspace,
    *,
    data: str,
    split: str,
    sequences: tuple[str, ...],
    computing: Computing,
) -> Job:
    """What a trial needs beside its configuration.

    Raises:
        UserError: if there is no such data or split, or a sequence may not be trained on.
    """
    store = workspace.store(data)
    job = Job(
        store=store,
        split=store.split(split),
        artifacts=workspace.artifacts,
        report_every=max(1, config.patches // REPORTS),
        validation_points=128,
        sequences=sequences,
        computing=computing,
    )
    job.training_patches()
    return job


def train_here(config: TrialConfig, job: Job, to: Path) -> None:
    """Train into the folder ``to``, from its checkpoint if it has one.

    Raises:
        UserError: if the trial collapses or diverges.
    """
    out.print(title(config))
    running = prepare_trial(config, job)
    if (to / CHECKPOINT).exists():
        running.load(to)
        out.print(f"going on from {running.progress.seen:,} patches")
    last = _follow(running, to)
    if last is not None and last.status != "completed":
        raise UserError(f"the trial {last.status}: {last.reason}; try a smaller learning rate")
    save_pipeline(running.pipeline(), recipe(config), to)
    out.print(
        f"saved {to}; score it with:  hpsearch evaluate {to} --data {job.store.path}",
        soft_wrap=True,
    )


def read_config(path: Path) -> TrialConfig:
    """A TrialConfig from a JSON file.

    Raises:
        UserError: if there is no such file, or it is no TrialConfig.
    """
    if not path.is_file():
        raise UserError(f"there is no trial at {path}; pass the path of a TrialConfig as JSON")
    with reading(path, "TrialConfig", "give one as JSON, as every MLflow run of a trial holds"):
        text = path.read_text()
        try:
            return TrialConfig.model_validate_json(text)
        except ValidationError as error:
            raise UserError(f"{path}: {validation_sentence(error)}") from error


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
