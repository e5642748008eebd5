"""A trial that is validated on every training sequence once, fold after fold."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hpsearch.atomic_files import read_with_checksum, write_with_checksum
from hpsearch.config import TrialConfig
from hpsearch.data.splits import folds
from hpsearch.execution.resumable_trial import SECONDS_METRIC, CheckpointHooks, run_with_checkpoints
from hpsearch.schema import to_json, unstamped
from hpsearch.search.outcome import COLLAPSE_STATUSES
from hpsearch.training.artifact_cache import COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC
from hpsearch.training.loop import Report
from hpsearch.training.trial import TrialEnvironment

FOLDS_FILE = "folds.json"
NUM_FOLDS_METRIC = "folds/done"
"""Metric: folds that the others are the mean over."""
SUMMED_METRICS = (SECONDS_METRIC, COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC)
SCORE_RANGE_METRIC = "folds/spread"
"""Metric: highest less lowest validation mAP of the folds so far."""


def run_cross_validation(
    config: TrialConfig, env: TrialEnvironment, hooks: CheckpointHooks, *, k: int
) -> Iterator[Report]:
    """One report a fold, with the means over the folds so far; the last fold ends the trial.

    Each fold has a network of its own and its share of the budget, so that the trial costs what the
    search allows a trial, and patches seen at the end of a fold are the same for all trials. A
    denoiser is trained on the fold's own sequences. Inside a fold there are checkpoints, but
    nothing is reported: half a fold is not comparable with a whole one.
    """
    share, done = config.patches // k, _read_folds(hooks)
    if done:
        yield _mean_report(done, share=share, k=k)
    for index, split in list(enumerate(folds(env.split, k)))[len(done) :]:
        part = replace(env, split=split, report_every=min(env.report_every, share))
        inner = hooks.subdirectory(f"fold-{index}")
        *_, last = run_with_checkpoints(config.model_copy(update={"patches": share}), part, inner)
        if last.status in COLLAPSE_STATUSES:
            spent = index * share + min(last.seen, share - 1)
            yield replace(last, seen=spent, reason=f"fold {index + 1}: {last.reason}")
            return
        done.append(last.metrics)
        _write_folds(hooks.checkpoint_dir, done)
        shutil.rmtree(inner.checkpoint_dir)
        hooks.on_checkpoint()
        yield _mean_report(done, share=share, k=k)


def _mean_report(done: Sequence[Mapping[str, float]], *, share: int, k: int) -> Report:
    """A batch overshoots the share by a little; nominal patches keep folds comparable."""
    names = [name for name in done[0] if all(name in fold for fold in done)]
    metrics = {name: sum(fold[name] for fold in done) / len(done) for name in names}
    headline = "val/mAP" if "val/mAP" in done[0] else "val/fpr95"
    scores = [fold[headline] for fold in done]
    metrics |= {
        **{name: sum(fold[name] for fold in done) for name in SUMMED_METRICS if name in names},
        NUM_FOLDS_METRIC: float(len(done)),
        SCORE_RANGE_METRIC: max(scores) - min(scores),
        **{f"folds/{i}/{headline}": score for i, score in enumerate(scores, 1)},
    }
    return Report(len(done) * share, metrics, "completed" if len(done) == k else "running")


def _read_folds(hooks: CheckpointHooks) -> list[dict[str, float]]:
    """Finished folds; none if their record is damaged."""
    content = read_with_checksum(hooks.checkpoint_dir / FOLDS_FILE)
    if content is not None:
        done = json.loads(content)
        if isinstance(done, list):  # of 0.1.0
            return done
        return unstamped(done, hooks.checkpoint_dir / FOLDS_FILE)["folds"]
    if (hooks.checkpoint_dir / FOLDS_FILE).exists():
        hooks.on_restart("the scores of its folds were damaged")
    return []


def _write_folds(folder: Path, done: list[dict[str, float]]) -> None:
    write_with_checksum(folder / FOLDS_FILE, to_json({"folds": done}).encode())
