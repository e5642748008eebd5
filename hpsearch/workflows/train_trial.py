"""Training of one trial on this machine, without Ray."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hpsearch.config import ComputeConfig, TrialConfig
from hpsearch.config.formatting import summary
from hpsearch.errors import UserError
from hpsearch.search.workspace import Workspace
from hpsearch.untrusted import reading, validation_sentence
from hpsearch.workflows.observer import Observer

if TYPE_CHECKING:
    from hpsearch.training.loop import Report
    from hpsearch.training.trial import TrialEnvironment

NUM_REPORTS = 10


def local_environment(
    config: TrialConfig,
    workspace: Workspace,
    *,
    data: str,
    split: str,
    sequences: tuple[str, ...],
    compute_config: ComputeConfig,
) -> "TrialEnvironment":
    """Build the environment of a trial: data, split and device.

    Args:
        config: the trial.
        workspace: home folder.
        data: patch set by name or path.
        split: name of the split.
        sequences: names of the training sequences; all of the split if empty.
        compute_config: device, precision, compilation and determinism.

    Raises:
        UserError: if there is no such data or split, or a sequence is not for training.
    """
    store = workspace.store(data)
    chosen = store.split(split)

    from hpsearch.training.trial import TrialEnvironment  # after all checks that do not need torch

    job = TrialEnvironment(
        store=store,
        split=chosen,
        artifacts=workspace.artifacts,
        report_every=max(1, config.patches // NUM_REPORTS),
        validation_points=128,
        sequences=sequences,
        computing=compute_config,
    )
    job.training_patches()
    return job


def train_trial(
    config: TrialConfig, env: "TrialEnvironment", output: Path, *, observer: Observer | None = None
) -> "Report | None":
    """Train a trial into the folder ``output``, from its checkpoint if there is one.

    Args:
        config: the trial.
        env: data, split and everything else that it needs; see ``local_environment``.
        output: folder for the checkpoint and the trained model.
        observer: receives a line for each report, and progress.

    Returns:
        The last report; None if the training in ``output`` had ended before.

    Raises:
        UserError: if the trial collapses or diverges.
    """
    from hpsearch.models.serialization import save_pipeline
    from hpsearch.promotion.final_evaluation import pipeline_spec
    from hpsearch.training.trial import CHECKPOINT_FILE, build_trial

    observer = observer or Observer()
    observer.message(summary(config))
    running = build_trial(config, env)
    if (output / CHECKPOINT_FILE).exists():
        running.load(output)
        observer.message(f"resumed from {running.progress.seen:,} patches")
    last = None
    with observer.progress("training") as advance:
        for last in running.reports():
            running.save(output)
            advance(last.seen, config.patches, "")
            observer.message(f"{last.seen:>10,} patches{_numbers(last)}")
    if last is not None and last.status != "completed":
        raise UserError(f"the trial {last.status}: {last.reason}; try a smaller learning rate")
    save_pipeline(running.pipeline(), pipeline_spec(config), output)
    return last


def _numbers(report: "Report") -> str:
    loss, score = report.metrics.get("train/loss"), report.metrics.get("val/mAP", 0.0)
    return "" if loss is None else f"  loss {loss:.3f}  mAP {score:.3f}"


def read_config(path: Path) -> TrialConfig:
    """Read a TrialConfig from a JSON file.

    Raises:
        UserError: if the file is missing, or is not a TrialConfig.
    """
    if not path.is_file():
        raise UserError(f"there is no trial at {path}; pass the path of a TrialConfig as JSON")
    with reading(path, "TrialConfig", "give one as JSON, as in the MLflow run of every trial"):
        text = path.read_text()
        try:
            return TrialConfig.model_validate_json(text)
        except ValidationError as error:
            raise UserError(f"{path}: {validation_sentence(error)}") from error
