"""The collapse detector on short runs whose end is known: right, wrong early, wrong late.

Every run goes to the end of its budget with no detector, and what a detector would have looked at
is written down. The detector then reads these looks, so its thresholds can be tried without
training again (``--save`` and ``--load``). Small networks, the embedded mini set.

Ground truth, from validation patches at the end of the full budget alone: a run has COLLAPSED if
its loss is no number, if the evaluation's own guard reports it (one place, points
indistinguishable), or if its descriptors lie in one place (relative dispersion below 0.1) and their
mean mAP is no better than the untrained network's. The detector should have stopped it. Any other
run learns, recovers or is slow, and the detector should have stayed silent: also on runs that sit
at the collapse value with descriptors a hundredth of their length apart, if these rank better than
untrained ones, for they are useful. A stop is late if it comes more than 5 % of the budget after
the last training batch with spread (relative dispersion above 0.1).

The last part of the grid is meant to come back or to be slow: batches that shrink, rates that fall,
warm-up. A run has RECOVERED if its descriptors lay close together (relative dispersion below 0.2 or
resultant length above 0.99) at three looks in a row and in the end did not, and it ended sound.

    python benchmarks/collapse_grid.py [--folder data] [--seed 0] [--rows 0:] [--save looks]
    python benchmarks/collapse_grid.py --load looks [looks ...]
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from collapse_runs import grid
from torch import Tensor

from hpsearch.config import ComputeConfig, L2Net, TrialConfig
from hpsearch.config.formatting import summary
from hpsearch.data.builtin_sets import open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.models import Pipeline, describe
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.collapse_detection import (
    BatchDispersion,
    CollapseDetector,
    collapse_scale,
)
from hpsearch.training.devices import tune_glibc_malloc
from hpsearch.training.loop import Progress, StopReason, fit
from hpsearch.training.trial import DescriptorTask, TrialEnvironment, build_trial

REPORTS, CHECKS = 8, 16
VERDICTS = ("right", "wrong early", "wrong late")
LATE = 0.05
"""Share of the budget after the collapse at which a stop is late."""
SPREAD = 0.1
"""Relative dispersion above which descriptors do not lie in one place."""
NARROW, ALIGNED, IN_A_ROW = 0.2, 0.99, 3
"""Relative dispersion below, or resultant length above, at so many looks: a run that ends apart has
recovered."""


@dataclass
class Looks:
    """One run to its end: a row a check."""

    name: str
    collapse_value: float
    budget: int
    begins: dict[str, float]
    """Validation before the first step."""
    ends: dict[str, float] = field(default_factory=dict)
    """Validation after the last step."""
    seconds: float = 0.0
    seen: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    dispersion: list[list[float]] = field(default_factory=list)

    @property
    def diverged(self) -> bool:
        """Its loss was no number in the end."""
        return not self.ends

    @property
    def collapsed(self) -> bool:
        """True if the run collapsed by the ground truth."""
        if self.diverged or self.ends["collapsed"]:
            return True
        one_place = self.ends["relative"] < SPREAD
        return one_place and self.ends["mAP"] <= self.begins["mAP"]

    @property
    def recovered(self) -> bool:
        """True if the descriptors collapsed for a while and recovered."""
        narrow = [
            relative < NARROW or resultant > ALIGNED for relative, resultant, _ in self.dispersion
        ]
        longest = max((len(list(run)) for bad, run in groupby(narrow) if bad), default=0)
        return not self.collapsed and longest >= IN_A_ROW and self.ends["relative"] > NARROW

    @property
    def truth(self) -> str:
        """In a word."""
        if self.diverged:
            return "diverged"
        if self.collapsed:
            return "collapsed"
        return "recovered" if self.recovered else "sound"

    @property
    def began(self) -> int:
        """Patches seen at the last look with spread."""
        pairs = zip(self.seen, self.dispersion, strict=True)
        return max((seen for seen, (relative, *_) in pairs if relative > SPREAD), default=0)


@dataclass
class Watched:
    """A task that is watched and never stopped."""

    task: DescriptorTask
    looks: Looks

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        loss, used = self.task.step(progress)
        self.now = progress.seen + used
        return loss, used

    def check(self, loss: float) -> StopReason | None:
        if self.task.trainer.stage_unconfirmed:
            return None
        self.looks.seen.append(self.now)
        self.looks.loss.append(loss)
        self.looks.dispersion.append(list(self.task.trainer.dispersion_without_dropout()))
        return None

    def evaluate(self) -> dict[str, float]:
        return {}

    def failure_metrics(self) -> dict[str, float]:
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--load", type=Path, nargs="+", default=[])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", default="0:", help="FROM:TO of the grid")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tune_glibc_malloc()
    if options.load:
        runs = [looks for path in options.load for looks in read(path)]
    else:
        runs = watch(PatchStore.open(open_builtin("mini", options.folder)), options)
    table(runs)


def watch(store: PatchStore, options: argparse.Namespace) -> list[Looks]:
    """Train the whole grid; written down after every run, and continued from there."""
    runs = read(options.save) if options.save and options.save.exists() else []
    first, last = (int(part) if part else None for part in options.rows.split(":"))
    for row in grid()[first:last][len(runs) :]:
        config = row.model_copy(update={"seed": options.seed})
        job = TrialEnvironment(
            store=store,
            split=store.split(),
            artifacts=ArtifactCache(str((options.folder / "artifacts").absolute())),
            report_every=config.patches,
            validation_points=64,
            computing=ComputeConfig(device="cpu"),
        )
        runs.append(run(config, job))
        log(line(runs[-1]))
        if options.save:
            options.save.write_text(json.dumps([asdict(looks) for looks in runs]))
    return runs


def read(path: Path) -> list[Looks]:
    return [Looks(**row) for row in json.loads(path.read_text())]


def run(config: TrialConfig, job: TrialEnvironment) -> Looks:
    """One configuration to the end."""
    started, task = time.perf_counter(), build_trial(config, job).task
    ending = L2Net(unit_norm=config.descriptor.unit_norm, final_norm=config.descriptor.final_norm)
    name = summary(config.model_copy(update={"descriptor": ending, "seed": 0}))
    begins = validated(task, settle=30)
    looks = Looks(name, task.trainer.collapse_value, config.patches, begins)
    every = config.patches // REPORTS
    for report in fit(Watched(task, looks), patches=config.patches, report_every=every):
        if report.status == "diverged":
            return looks
    looks.ends = validated(task)
    looks.seconds = time.perf_counter() - started
    return looks


def validated(task: DescriptorTask, *, settle: int = 0) -> dict[str, float]:
    """Scores of validation patches, none if a weight is not finite; ``settle`` batches go first."""
    if not all(bool(p.isfinite().all()) for p in task.network.parameters()):
        return {}
    points, rng = len(task.trainer.sequence_of), np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(settle):
            task.network.train()(task.trainer.input_fn(rng.integers(16 * points, size=256), 0.0))
    pipeline = Pipeline(denoiser=None, descriptor=task.network)
    scores = task.validation.score(describe(pipeline, task.seen_by_descriptor))
    found = {"matching": scores.matching, "mAP": scores.mean, **asdict(scores.dispersion)}
    return {**found, "collapsed": float(scores.collapsed)}


def verdict(looks: Looks, detector: CollapseDetector) -> tuple[str, int | None]:
    """Result of the detector, and patches seen at which it would have stopped the run."""
    if looks.diverged:  # the loop ends these itself
        return "right", looks.seen[-1] if looks.seen else 0
    stopped = None
    for seen, loss, dispersed in zip(looks.seen, looks.loss, looks.dispersion, strict=True):
        if detector.update(BatchDispersion(*dispersed), loss):
            stopped = seen
            break
    if looks.collapsed:
        late = stopped is None or stopped - looks.began > LATE * looks.budget
        return ("wrong late" if late else "right"), stopped
    return ("right" if stopped is None else "wrong early"), stopped


def table(runs: list[Looks]) -> None:
    """One row a run, and the sums."""
    log("| run | truth | mAP untrained → end | loss ÷ value | spread | gone at | stop | |")
    log("|---|---|---|---|---|---|---|---|")
    verdicts = []
    for looks in runs:
        word, stopped = verdict(looks, CollapseDetector(looks.collapse_value))
        verdicts.append(word)
        at = "–" if stopped is None else f"{stopped / looks.budget:.1%}"
        loss = statistics.mean(looks.loss[-CHECKS:]) / collapse_scale(looks.collapse_value)
        began = f"{looks.began / looks.budget:.0%}" if looks.collapsed else "–"
        log(
            f"| {looks.name} | {looks.truth} | "
            f"{looks.begins['mAP']:.3f} → {looks.ends.get('mAP', math.nan):.3f} | {loss:.3f} | "
            f"{looks.ends.get('relative', math.nan):.3f} | {began} | {at} | {word} |"
        )
    for truth in ("all", *dict.fromkeys(looks.truth for looks in runs)):
        pairs = zip(runs, verdicts, strict=True)
        sums = Counter(word for looks, word in pairs if truth in ("all", looks.truth))
        log(f"{truth}: {sums.total()} runs, " + ", ".join(f"{sums[w]} {w}" for w in VERDICTS))


def line(looks: Looks) -> str:
    """Summary of a finished run, as a line of output."""
    loss = [round(x / collapse_scale(looks.collapse_value), 3) for x in looks.loss[:: CHECKS * 2]]
    begins, ends = (
        {name: round(value, 3) for name, value in found.items()}
        for found in (looks.begins, looks.ends)
    )
    output = f"{looks.name}: {looks.truth}, {looks.seconds:.0f} s, {begins} → {ends}"
    return f"{output}, loss ÷ collapse value {loss}"


def log(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
