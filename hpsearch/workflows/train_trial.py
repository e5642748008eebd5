"""Training of one trial on this machine, without Ray."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hpsearch.atomic_files import write_atomic
from hpsearch.config import ComputeConfig, CustomNetwork, TrialConfig
from hpsearch.config.custom import custom_parts
from hpsearch.config.custom_import import pinned, take_sources
from hpsearch.config.formatting import summary
from hpsearch.errors import UserError
from hpsearch.execution.shutdown import deferred_sigint
from hpsearch.schema import from_json, to_json
from hpsearch.search.search import Search
from hpsearch.search.search_data import SearchData
from hpsearch.search.workspace import Workspace
from hpsearch.untrusted import reading, validation_sentence
from hpsearch.workflows.observer import Observer

if TYPE_CHECKING:
    from hpsearch.training.loop import Report
    from hpsearch.training.trial import TrialEnvironment
    from hpsearch.workflows.recorded_trial import RecordedTrial

NUM_REPORTS = 10
DEFAULT_VALIDATION_POINTS: int = Search.model_fields["validation_points"].default
OUTPUT_RECORD = "training.json"
"""File in an output folder: what is trained there, and on what."""


def local_environment(
    config: TrialConfig,
    workspace: Workspace,
    *,
    data: str,
    split: str,
    sequences: tuple[str, ...],
    compute_config: ComputeConfig,
    validation_points: int = DEFAULT_VALIDATION_POINTS,
    validation_data: str | None = None,
    observer: Observer | None = None,
) -> "TrialEnvironment":
    """Build the environment of a trial: data, split and device.

    Args:
        config: the trial.
        workspace: home folder.
        data: patch set by name or path.
        split: name of the split.
        sequences: names of the training sequences; all of the split if empty.
        compute_config: device, precision, compilation and determinism.
        validation_points: points of each validation sequence that a report is evaluated on.
        validation_data: other patches to validate on, apart from their test part, by name or path;
            the validation part of ``data`` is then trained on. None to validate on that part.
        observer: receives a message if patches that are validated on are also trained on.

    Raises:
        UserError: if there is no such data or split, or a sequence is not for training.
    """
    other = None if validation_data is None else workspace.store(validation_data)
    parts = SearchData.divide(workspace.store(data), split, validation_store=other)

    from hpsearch.training.trial import TrialEnvironment

    job = TrialEnvironment(
        store=parts.store,
        split=parts.split,
        validation_on=parts.validation_on,
        artifacts=workspace.artifacts,
        report_every=max(1, config.patches // NUM_REPORTS),
        validation_points=validation_points,
        sequences=sequences,
        computing=compute_config,
    )
    job.training_patches()
    if parts.validation_on is not None:
        for sentence in parts.overlaps():
            (observer or Observer()).message(sentence)
    return job


def environment_of(
    config: TrialConfig,
    workspace: Workspace,
    options: Mapping[str, Any],
    observer: Observer | None = None,
) -> "TrialEnvironment":
    """Build the environment of a trial from the options that are given, by their names.

    Raises:
        UserError: as ``local_environment``.
        pydantic.ValidationError: if an option has a value that there is not.
    """
    compute = {
        name: options[name] for name in ("device", "precision", "deterministic") if name in options
    }
    return local_environment(
        config,
        workspace,
        data=options.get("data", "mini"),
        split=options.get("split", "auto"),
        sequences=tuple(name for name in options.get("sequences", "").split(",") if name),
        compute_config=ComputeConfig.model_validate(
            {**compute, "compiled": options.get("compile", False)}
        ),
        validation_points=options.get("validation_points", DEFAULT_VALIDATION_POINTS),
        validation_data=options.get("validation_data"),
        observer=observer,
    )


def train_trial(
    config: TrialConfig,
    env: "TrialEnvironment",
    output: Path,
    *,
    threads: int = 1,
    recorded: "RecordedTrial | None" = None,
    observer: Observer | None = None,
) -> "Report | None":
    """Train a trial into the folder ``output``, from its checkpoint if there is one.

    Args:
        config: the trial; own objects without a digest are those of this program's modules.
        env: data, split and everything else that it needs; see ``local_environment``.
        output: folder for the checkpoint and the trained model.
        threads: torch's threads on the CPU; other numbers give other last bits.
        recorded: the trial of a search that this repeats; its reports are compared, and its
            cross-validation is repeated before the network is trained.
        observer: receives a line for each report, and progress.

    Returns:
        The last report; None if the training in ``output`` had ended before.

    Raises:
        UserError: if the trial collapses or diverges, or ``output`` cannot be written or holds
            another training.
        KeyboardInterrupt: once it has been saved, after Ctrl-C, SIGTERM or SIGHUP.
    """
    from hpsearch.training.devices import torch_threads

    observer = observer or Observer()
    config = pinned(config, None)
    num_folds = None if recorded is None else recorded.num_folds
    _open_output(output, _description(config, env, num_folds))
    observer.message(summary(config))
    observer.message(_conditions(env, threads, num_folds))
    with torch_threads(threads):
        if recorded is not None and num_folds:
            _repeat_folds(config, recorded, env, output, observer)
            recorded = None  # the search has trained folds alone
        return _train(config, env, output, recorded, observer)


def _train(
    config: TrialConfig,
    env: "TrialEnvironment",
    output: Path,
    recorded: "RecordedTrial | None",
    observer: Observer,
) -> "Report | None":
    from hpsearch.models.onnx_export import require_onnx
    from hpsearch.models.serialization import save_pipeline
    from hpsearch.promotion.final_evaluation import pipeline_spec
    from hpsearch.training.loop import Report
    from hpsearch.training.trial import CHECKPOINT_FILE, build_trial
    from hpsearch.workflows.recorded_trial import report_comparison

    if isinstance(config.descriptor, CustomNetwork):
        require_onnx()  # the model is saved as a program, at the end
    running = build_trial(config, env)
    if (output / CHECKPOINT_FILE).exists():
        running.load(output)
        observer.message(f"resumed from {running.progress.seen:,} patches")
    reports = list[Report]()
    with observer.progress("training") as advance, deferred_sigint() as interrupted:

        def stop_if_interrupted() -> None:
            if interrupted():
                running.save(output)
                observer.message(
                    f"saved at {running.progress.seen:,} patches; the same command resumes there"
                )
                raise KeyboardInterrupt

        for report in running.reports(on_step=stop_if_interrupted):
            running.save(output)
            reports.append(report)
            advance(min(report.seen, config.patches), config.patches, "")
            observer.message(f"{report.seen:>10,} patches{_numbers(report)}")
            stop_if_interrupted()
    if recorded is not None:
        report_comparison(recorded, reports, observer)
    last = reports[-1] if reports else None
    if last is not None:
        _refuse_failure(last)
    save_pipeline(running.pipeline(), pipeline_spec(config), output)
    return last


def _repeat_folds(
    config: TrialConfig,
    recorded: "RecordedTrial",
    env: "TrialEnvironment",
    output: Path,
    observer: Observer,
) -> None:
    """Repeat the cross-validation of a trial; its checkpoints lie in a folder of the output."""
    from hpsearch.execution.cross_validation import run_cross_validation
    from hpsearch.execution.resumable_trial import CheckpointHooks
    from hpsearch.training.loop import Report
    from hpsearch.workflows.recorded_trial import report_comparison

    assert recorded.num_folds is not None, "called for a cross-validation"
    hooks = CheckpointHooks(
        output / "folds", on_restart=lambda why: observer.message(f"restarted from scratch; {why}")
    )
    reports = list[Report]()
    with observer.progress("cross-validating") as advance:
        for report in run_cross_validation(config, env, hooks, k=recorded.num_folds):
            reports.append(report)
            advance(min(report.seen, config.patches), config.patches, "")
            observer.message(f"{report.seen:>10,} patches{_numbers(report)}, mean over folds")
    report_comparison(recorded, reports, observer)
    _refuse_failure(reports[-1])
    observer.message("training the network on the whole training part …")


def _refuse_failure(last: "Report") -> None:
    if last.status != "completed":
        raise UserError(
            f"the trial {last.status}: {last.reason}; try a smaller learning rate",
            code="trial-failed",
        )


def _description(
    config: TrialConfig, env: "TrialEnvironment", num_folds: int | None
) -> dict[str, Any]:
    """Dependencies of a training, apart from the machine, as JSON values."""
    other = env.validation_on
    return {
        "config": config.model_dump(mode="json"),
        "data": env.store.fingerprint,
        "train": list(env.sequences or env.split.train),
        "validation": list(env.validation_patches().names),
        "validation_points": env.validation_points,
        "report_every": env.report_every,
        "num_folds": num_folds,
    } | ({} if other is None else {"validation_data": other.store.fingerprint})


def _open_output(output: Path, description: dict[str, Any]) -> None:
    """Create an output folder and record what is trained in it, before any work is done.

    Raises:
        UserError: if it cannot be written, or holds another training.
    """
    from hpsearch.training.trial import CHECKPOINT_FILE

    path = output / OUTPUT_RECORD
    try:
        output.mkdir(parents=True, exist_ok=True)
        if path.exists() and (output / CHECKPOINT_FILE).exists():
            with reading(path, "record of a training", "remove it to train there again"):
                known = from_json(path.read_text(), path)
            if known != description:
                raise UserError(
                    f"{output} holds another training (see {path}); give another --output, or "
                    "remove that folder",
                    code="output-in-use",
                )
        write_atomic(path, to_json(description, indent=1))
    except OSError as error:
        raise UserError(
            f"the folder {output} cannot be written ({error.strerror}); give another --output",
            code="output-not-writable",
        ) from error


def _conditions(env: "TrialEnvironment", threads: int, num_folds: int | None) -> str:
    """Conditions that decide the numbers of a training, for a message."""
    folds = f", {num_folds} folds" if num_folds else ""
    return (
        f"data {env.store.path.stem}, split {env.split.name}{folds}, validation on "
        f"{env.validation_points} points of each sequence, device {env.computing.device}, "
        f"{threads} thread{'' if threads == 1 else 's'}"
    )


def _numbers(report: "Report") -> str:
    loss, score = report.metrics.get("train/loss"), report.metrics.get("val/mAP", 0.0)
    return "" if loss is None else f"  loss {loss:.3f}  mAP {score:.4f}"


def read_config(path: Path, space: Path | None = None) -> TrialConfig:
    """Read a TrialConfig from a JSON file, which imports nothing by itself.

    Args:
        path: the JSON file.
        space: space file whose folder holds the source of the trial's own objects, if it has any.

    Raises:
        UserError: if the file is missing, or is not a TrialConfig; if it has objects of the user's
            own, and no space is given or its source is another one.
    """
    config = _parse_config(path)
    own = next((part.object for _, part in custom_parts(config)), None)
    if space is None and own is not None:
        raise UserError(
            f"{path} names {own}, and a trial alone imports nothing; give the space file that "
            "defines it with --space",
            code="custom-source-unknown",
        )
    if space is not None and own is None:
        raise UserError(
            f"{path} names no object of a space file; leave --space out", code="space-not-needed"
        )
    if space is None:
        return config
    config = take_sources(config, space)

    from hpsearch.training.custom_parts import rehearse

    rehearse([config])
    return config


def _parse_config(path: Path) -> TrialConfig:
    if not path.is_file():
        raise UserError(
            f"there is no trial at {path}; pass the path of a TrialConfig as JSON, or SEARCH/TRIAL"
        )
    with reading(path, "TrialConfig", "give one as JSON, as in the MLflow run of every trial"):
        text = path.read_text("utf-8")
        if not text.lstrip().startswith("{"):
            raise ValueError("it is no JSON object")
        try:
            return TrialConfig.model_validate_json(text)
        except ValidationError as error:
            raise UserError(f"{path}: {validation_sentence(error)}") from error
