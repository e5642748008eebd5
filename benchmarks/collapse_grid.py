"""The collapse detector on short runs whose end is known: right, wrong early, wrong late.

Every run goes to the end of its budget with no detector, and what a detector would have looked at
is written down. The detector then reads these looks, so its thresholds can be tried without
training again (``--save`` and ``--load``). Small networks, the embedded mini set.

Ground truth, from the end of the run alone and on validation patches: a run has COLLAPSED if the
evaluation's own guard says so (one place, and points not told apart), or if its loss is stuck at
the collapse value in the last quarter, its descriptors lie in one place, and they match no better
than the untrained network's. The detector should have stopped it. Any other run learns, recovers
or is slow, and the detector should have stayed silent. A stop is late if it comes more than 5 % of
the budget after the last training batch with spread (relative dispersion above 0.1).

    python benchmarks/collapse_grid.py [--folder data] [--seed 0] [--save looks | --load looks]
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpsearch.config import (
    SGD,
    Adam,
    BatchAll,
    BatchHard,
    Contrastive,
    HardMargin,
    HardNet,
    InBatchHard,
    L2Net,
    Pairs,
    RandomTriplets,
    SoftMargin,
    SxK,
    TrialConfig,
    Triplet,
)
from hpsearch.config.flat import title
from hpsearch.data.embedded import embedded_store
from hpsearch.data.store import PatchStore
from hpsearch.models import Pipeline, describe
from hpsearch.training.artifacts import Artifacts
from hpsearch.training.collapse import CollapseDetector, Dispersion
from hpsearch.training.devices import keep_freed_memory
from hpsearch.training.loop import Progress, Verdict, fit
from hpsearch.training.tasks import DescriptorTask
from hpsearch.training.trial import Job, prepare_trial

PATCHES, STEPS = 16_000, 100
"""A budget is this many patches, or this many steps where that is more."""
REPORTS, CHECKS = 8, 16
VERDICTS = ("right", "wrong early", "wrong late")
LATE = 0.05
"""Share of the budget after the collapse at which a stop is late."""
STUCK, SPREAD, BETTER = 0.98, 0.1, 1.1
"""Share of the collapse value above which a loss is stuck; relative dispersion that is spread;
factor on the untrained matching mAP that is better."""


@dataclass
class Looks:
    """One run to its end: a row a check."""

    name: str
    collapse_value: float
    budget: int
    untrained: float
    """Validation matching mAP before the first step."""
    trained: float = math.nan
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
        """By the ground truth."""
        if self.diverged or self.ends["collapsed"]:
            return True
        last = self.loss[-(len(self.loss) // 4) :]
        stuck = min(last) > STUCK * self.collapse_value and self.ends["relative"] < SPREAD
        return stuck and self.trained < BETTER * self.untrained

    @property
    def truth(self) -> str:
        """In a word."""
        if self.diverged:
            return "diverged"
        return "collapsed" if self.collapsed else "sound"

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

    def check(self, loss: float) -> Verdict | None:
        self.looks.seen.append(self.now)
        self.looks.loss.append(loss)
        self.looks.dispersion.append(list(self.task.learner.looked_at()))
        return None

    def evaluate(self) -> dict[str, float]:
        return {}

    def worst(self) -> dict[str, float]:
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--load", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if options.load:
        runs = read(options.load)
    else:
        runs = watch(PatchStore.open(embedded_store("mini", options.folder)), options)
    table(runs)


def watch(store: PatchStore, options: argparse.Namespace) -> list[Looks]:
    """Train the whole grid; written down after every run, and continued from there."""
    runs = read(options.save) if options.save and options.save.exists() else []
    for row in grid()[len(runs) :]:
        config = row.model_copy(update={"seed": options.seed})
        job = Job(
            store=store,
            split=store.split(),
            artifacts=Artifacts(str((options.folder / "artifacts").absolute())),
            report_every=config.patches,
            validation_points=64,
            device="cpu",
        )
        runs.append(run(config, job))
        say(line(runs[-1]))
        if options.save:
            options.save.write_text(json.dumps([asdict(looks) for looks in runs]))
    return runs


def read(path: Path) -> list[Looks]:
    return [Looks(**row) for row in json.loads(path.read_text())]


def run(config: TrialConfig, job: Job) -> Looks:
    """One configuration to the end."""
    started, task = time.perf_counter(), prepare_trial(config, job).task
    ending = L2Net(unit_norm=config.descriptor.unit_norm, final_norm=config.descriptor.final_norm)
    name = title(config.model_copy(update={"descriptor": ending, "seed": 0}))
    looks = Looks(name, config.loss.collapse_value, config.patches, untrained=0.0)
    looks.untrained = validated(task, settle=30)["matching"]
    every = config.patches // REPORTS
    for report in fit(Watched(task, looks), patches=config.patches, report_every=every):
        if report.status == "diverged":
            return looks
    looks.ends = validated(task)
    looks.trained = looks.ends.get("matching", math.nan)
    looks.seconds = time.perf_counter() - started
    return looks


def validated(task: DescriptorTask, *, settle: int = 0) -> dict[str, float]:
    """Scores of validation patches, none if a weight is not finite; ``settle`` batches go first."""
    if not all(bool(p.isfinite().all()) for p in task.network.parameters()):
        return {}
    points, rng = len(task.learner.sequence_of), np.random.default_rng(0)
    with torch.no_grad():
        for _ in range(settle):
            task.network.train()(task.learner.feed(rng.integers(16 * points, size=256), 0.0))
    pipeline = Pipeline(denoiser=None, descriptor=task.network)
    scores = task.validation.score(describe(pipeline, task.seen_by_descriptor))
    found = {"matching": scores.matching, "mAP": scores.mean, **asdict(scores.dispersion)}
    return {**found, "collapsed": float(scores.collapsed)}


def verdict(looks: Looks, detector: CollapseDetector) -> tuple[str, int | None]:
    """How the detector did, and at how many patches seen it would have stopped the run."""
    if looks.diverged:  # the loop ends these itself
        return "right", looks.seen[-1] if looks.seen else 0
    stopped = None
    for seen, loss, dispersed in zip(looks.seen, looks.loss, looks.dispersion, strict=True):
        if detector.look(Dispersion(*dispersed), loss):
            stopped = seen
            break
    if looks.collapsed:
        late = stopped is None or stopped - looks.began > LATE * looks.budget
        return ("wrong late" if late else "right"), stopped
    return ("right" if stopped is None else "wrong early"), stopped


def table(runs: list[Looks]) -> None:
    """One row a run, and the sums."""
    say("| run | truth | matching mAP untrained → end | loss ÷ value | spread | gone at | stop | |")
    say("|---|---|---|---|---|---|---|---|")
    verdicts = []
    for looks in runs:
        word, stopped = verdict(looks, CollapseDetector(looks.collapse_value))
        verdicts.append(word)
        at = "–" if stopped is None else f"{stopped / looks.budget:.1%}"
        loss = statistics.mean(looks.loss[-CHECKS:]) / looks.collapse_value
        began = f"{looks.began / looks.budget:.0%}" if looks.collapsed else "–"
        say(
            f"| {looks.name} | {looks.truth} | "
            f"{looks.untrained:.3f} → {looks.trained:.3f} | {loss:.3f} | "
            f"{looks.ends.get('relative', math.nan):.3f} | {began} | {at} | {word} |"
        )
    sums = Counter(verdicts)
    say(f"{len(runs)} runs: " + ", ".join(f"{sums[w]} {w}" for w in VERDICTS))


def line(looks: Looks) -> str:
    """What happened in a run, for whoever waits."""
    loss = [round(x / looks.collapse_value, 3) for x in looks.loss[:: CHECKS * 2]]
    change = f"{looks.untrained:.3f} → {looks.trained:.3f}"
    ends = {name: round(value, 3) for name, value in looks.ends.items()}
    return f"{looks.name}: {change}, {ends}, loss ÷ collapse value {loss}, {looks.seconds:.0f} s"


def grid() -> list[TrialConfig]:
    """Known to collapse: large batch, K > 3, Adam, high rates, squared distances. Known not to:
    random triplets, small K, low rates, normalised ends; some so slow that they hug the value.
    """
    raw, unit = network(), network(unit_norm=True)
    ended = network(unit_norm=True, final_norm=True)
    soft, squared = BatchHard(margin=SoftMargin()), BatchHard(distance="squared")
    soft_squared = BatchHard(distance="squared", margin=SoftMargin())
    low_squared = BatchHard(distance="squared", margin=HardMargin(alpha=0.2))
    soft_all = BatchAll(margin=SoftMargin())
    rows = [
        (unit, squared, SxK(groups=16, views=8), Adam(lr=0.3)),
        (unit, squared, SxK(groups=64, views=8), Adam(lr=1e-2)),
        (raw, squared, SxK(groups=64, views=8), Adam(lr=1e-2)),
        (raw, BatchHard(), SxK(groups=64, views=8), Adam(lr=1e-2)),
        (raw, BatchHard(), SxK(groups=128, views=4), Adam(lr=1e-2)),
        (unit, BatchHard(), SxK(groups=16, views=16), Adam(lr=1e-2)),
        (raw, soft_squared, SxK(groups=32, views=8), Adam(lr=3e-2)),
        (raw, soft, SxK(groups=32, views=8), Adam(lr=0.1)),
        (raw, squared, SxK(groups=16, views=16), Adam(lr=3e-2)),
        (unit, soft, SxK(groups=16, views=16), Adam(lr=0.1)),
        (raw, low_squared, SxK(groups=64), Adam(lr=1e-2)),
        (unit, HardNet(), Pairs(batch=128), Adam(lr=0.1)),
        (raw, BatchAll(distance="squared"), SxK(groups=32, views=8), Adam(lr=0.1)),
        (raw, Triplet(), RandomTriplets(batch=64), SGD(lr=10, momentum=0.9)),
        (raw, BatchHard(), SxK(groups=32, views=4), SGD(lr=0.3, momentum=0.9)),
        (raw, Triplet(distance="euclidean"), RandomTriplets(batch=64), Adam(lr=2e-3)),
        (raw, Triplet(), RandomTriplets(batch=50), SGD()),
        (raw, Triplet(), RandomTriplets(batch=50), SGD(lr=1e-3)),
        (raw, soft_all, SxK(groups=24, views=8), Adam(lr=2e-3)),
        (raw, soft_all, SxK(groups=24, views=8), SGD(lr=1e-4)),
        (ended, BatchAll(margin=HardMargin(alpha=0.5)), SxK(groups=24, views=8), Adam(lr=2e-3)),
        (ended, soft, SxK(groups=48, views=4), Adam(lr=2e-3)),
        (ended, BatchHard(), SxK(groups=48, views=4), Adam(lr=2e-3)),
        (ended, HardNet(), Pairs(batch=96), Adam(lr=2e-3)),
        (unit, HardNet(), Pairs(batch=96), Adam(lr=1e-3)),
        (raw, BatchHard(), SxK(groups=32, views=2), Adam(lr=5e-4)),
        (raw, BatchHard(), SxK(groups=32, views=4), Adam(lr=1e-4)),
        (raw, soft, SxK(groups=16, views=4), Adam(lr=3e-5)),
        (unit, BatchHard(), SxK(groups=16, views=2), SGD(lr=1e-3)),
        (raw, soft, SxK(groups=32, views=2), Adam(lr=1e-2)),
        (unit, InBatchHard(), Pairs(batch=96), Adam(lr=1e-3)),
        (raw, Contrastive(), RandomTriplets(batch=64), Adam(lr=1e-3)),
        (raw, Triplet(distance="euclidean"), RandomTriplets(batch=64), SGD(lr=1.0, momentum=0.9)),
        (raw, BatchAll(), SxK(groups=24, views=8), Adam(lr=1e-2)),
    ]
    return [
        TrialConfig(
            descriptor=descriptor,
            loss=loss,
            sampler=sampler,
            optimiser=optimiser,
            patches=max(PATCHES, STEPS * sampler.patches),
        )
        for descriptor, loss, sampler, optimiser in rows
    ]


def network(*, unit_norm: bool = False, final_norm: bool = False) -> L2Net:
    """Narrow, and with statistics that have forgotten their start at the end of a short run."""
    return L2Net(
        width=0.125,
        norm_momentum=0.1,
        patch_norm=True,
        dropout=0.1,
        unit_norm=unit_norm,
        final_norm=final_norm,
    )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
