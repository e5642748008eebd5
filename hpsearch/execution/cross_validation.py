"""A trial that is validated on every training sequence once, fold after fold."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hpsearch.atomic_files import read_sealed, write_sealed
from hpsearch.config import TrialConfig
from hpsearch.data.splits import folds
from hpsearch.execution.resumable_trial import SECONDS, Post, checkpointed
from hpsearch.schema import to_json, unstamped
from hpsearch.search.outcome import FAILURES
from hpsearch.training.artifact_cache import MADE, SPARED
from hpsearch.training.loop import Report
from hpsearch.training.trial import Job

DONE = "folds.json"
FOLDS = "folds/done"
"""Metric: folds that the others are the mean over."""
SUMMED = (SECONDS, MADE, SPARED)
SPREAD = "folds/spread"
"""Metric: highest less lowest validation mAP of the folds so far."""


def folded(config: TrialConfig, job: Job, post: Post, *, k: int) -> Iterator[Report]:
    """One report a fold, with the means over the folds so far; the last fold ends the trial.

    Each fold has a network of its own and its share of the budget, so that the trial costs what the
    search allows a trial, and patches seen at the end of a fold are the same for all trials. A
    denoiser is trained on the fold's own sequences. Inside a fold there are checkpoints, but
    nothing is reported: half a fold is not comparable with a whole one.
    """
    share, done = config.patches // k, _read(post)
    if done:
        yield _mean(done, share=share, k=k)
    for index, split in list(enumerate(folds(job.split, k)))[len(done) :]:
        part = replace(job, split=split, report_every=min(job.report_every, share))
        inner = post.within(f"fold-{index}")
        *_, last = checkpointed(config.model_copy(update={"patches": share}), part, inner)
        if last.status in FAILURES:
            spent = index * share + min(last.seen, share - 1)
            yield replace(last, seen=spent, reason=f"fold {index + 1}: {last.reason}")
            return
        done.append(last.metrics)
        _write(post.folder, done)
        shutil.rmtree(inner.folder)
        post.saved()
        yield _mean(done, share=share, k=k)


def _mean(done: Sequence[Mapping[str, float]], *, share: int, k: int) -> Report:
    """A batch overshoots the share by a little; nominal patches keep folds comparable."""
    names = [name for name in done[0] if all(name in fold for fold in done)]
    metrics = {name: sum(fold[name] for fold in done) / len(done) for name in names}
    scores = [fold["val/mAP"] for fold in done]
    metrics |= {
        **{name: sum(fold[name] for fold in done) for name in SUMMED if name in names},
        FOLDS: float(len(done)),
        SPREAD: max(scores) - min(scores),
        **{f"folds/{i}/val/mAP": score for i, score in enumerate(scores, 1)},
    }
    return Report(len(done) * share, metrics, "completed" if len(done) == k else "running")


def _read(post: Post) -> list[dict[str, float]]:
    """Folds that are done; none if what says so is damaged."""
    content = read_sealed(post.folder / DONE)
    if content is not None:
        done = json.loads(content)
        if isinstance(done, list):  # of 0.1.0
            return done
        return unstamped(done, post.folder / DONE)["folds"]
    if (post.folder / DONE).exists():
        post.anew("the scores of its folds were damaged")
    return []


def _write(folder: Path, done: list[dict[str, float]]) -> None:
    write_sealed(folder / DONE, to_json({"folds": done}).encode())
