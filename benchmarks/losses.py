"""Six ways to train a descriptor at equal patches seen, several seeds each, on the mini set.

The coursework's baseline triplet (as published, and with Adam) against batch hard, soft batch hard,
in-batch hard, and R3's recipe: baseline weights first, then soft batch hard in steps of S·K = 64,
128, 384, 1024. The patches of the baseline weights count as seen.

Everything but the published baseline is trained by Adam at one constant rate, chosen for each way
from the same few (``--rates``) by a shorter training with another seed. Narrow L2-Net on noisy,
normalized patches, 192 patches a batch; unit descriptors after batch normalization for all but the
baseline's triplet, which is defined on raw ones. Scores are mAP on all validation points, mean and
standard deviation over seeds; seconds are processor time of a whole trial on one thread.

    python benchmarks/losses.py [--folder data] [--patches 150000] [--pilot 24000] [--seeds 3]
        [--only WAY] [--save runs.json]

With ``--save`` every training is written down when it ends, and one that is there is not repeated.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from hpsearch.config import (
    SGD,
    Adam,
    BatchHard,
    ComputeConfig,
    InBatchHard,
    L2Net,
    Pairs,
    PKSampler,
    RandomTriplets,
    SoftMargin,
    Stepped,
    TrialConfig,
    WarmStart,
)
from hpsearch.data.builtin_sets import open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.devices import tune_glibc_malloc
from hpsearch.training.trial import TrialEnvironment, build_trial

SCORES = ("mAP", "verification", "matching", "retrieval")
REPORTS = 3
RATES = (1e-2, 3e-3, 3e-2)
PILOT_SEED = 9
WARM = 1 / 6
"""Share of the budget that the baseline weights of the stepped way have seen."""
STAGES = (
    PKSampler(groups=32, views=2),
    PKSampler(groups=32, views=4),
    PKSampler(groups=64, views=6),
    PKSampler(groups=128, views=8),
)
"""S·K = 64, 128, 384 and 1024 with K = 2, 4, 6, 8, as R3 reports (its 386 is no multiple of 6)."""


@dataclass
class Ended:
    """Result of one training."""

    status: str = "?"
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    stages: list[int] = field(default_factory=list)
    """Stage at each report."""

    @property
    def mean_average_precision(self) -> float:
        """Score by which a learning rate is chosen."""
        return self.metrics["val/mAP"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--patches", type=int, default=150_000)
    parser.add_argument("--pilot", type=int, default=24_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--only", default="", help="ways whose name contains this")
    parser.add_argument("--save", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tune_glibc_malloc()
    store = PatchStore.open(open_builtin("mini", options.folder))
    trained = Trained(store, options.save)
    chosen = {name: way for name, way in ways(options).items() if options.only in name}
    tuned = {name: tune(name, config, options, trained) for name, config in chosen.items()}
    runs: dict[str, list[Ended]] = {name: [] for name in tuned}
    for seed in range(options.seeds):
        for name, config in tuned.items():
            runs[name].append(trained.run(config, seed=seed))
            log(f"seed {seed}: {row(name, runs[name][-1:])}")
    log(f"{options.patches:,} patches, width {options.width}, {options.seeds} seeds")
    log(f"| training | rate | seconds | {' | '.join(SCORES)} | ends |")
    log("|---" * (len(SCORES) + 4) + "|")
    for name, config in tuned.items():
        log(row(f"{name} | {config.optimizer.lr:g}", runs[name]))


def ways(options: argparse.Namespace) -> dict[str, TrialConfig]:
    """The six, with what each is known to need."""
    raw = L2Net(width=options.width, bn_momentum=0.1, input_norm=True, dropout=0.1)
    unit = raw.model_copy(update={"unit_norm": True, "final_norm": True})
    triplets = TrialConfig(
        descriptor=raw, sampler=RandomTriplets(batch=64), patches=options.patches
    )
    soft, groups = BatchHard(margin=SoftMargin()), PKSampler(groups=48, views=4)
    grown = Stepped(stages=STAGES, below=0.05, window=4096, retry_after=20_000)
    changed = {
        "baseline triplet, Adam": {"optimizer": Adam()},
        "batch hard": {"loss": BatchHard(), "sampler": groups},
        "soft batch hard": {"loss": soft, "sampler": groups},
        "in-batch hard": {"loss": InBatchHard(), "sampler": Pairs(batch=96)},
        "stepped soft batch hard": {"loss": soft, "sampler": grown, "warm_start": WarmStart()},
        "baseline triplet, SGD as published": {"optimizer": SGD()},
    }
    hard = {"descriptor": unit, "optimizer": Adam()}
    return {
        name: TrialConfig.model_validate({**dict(triplets), **(hard if len(of) > 1 else {}), **of})
        for name, of in changed.items()
    }


def tune(
    name: str, config: TrialConfig, options: argparse.Namespace, trained: "Trained"
) -> TrialConfig:
    """The configuration with the best of the rates; the published baseline stays as it is."""
    if isinstance(config.optimizer, SGD):
        return config
    tried = [config.model_copy(update={"optimizer": Adam(lr=lr)}) for lr in options.rates]
    short = [one.model_copy(update={"patches": options.pilot}) for one in tried]
    runs = []
    for one in short:
        runs.append(trained.run(one, seed=PILOT_SEED))
        log(f"pilot: {row(f'{name} | {one.optimizer.lr:g}', runs[-1:])}")
    best = max(range(len(runs)), key=lambda n: runs[n].mean_average_precision)
    return tried[best]


@dataclass
class Trained:
    """Trainings by configuration, on disk if a file is given."""

    store: PatchStore
    path: Path | None

    def run(self, config: TrialConfig, *, seed: int) -> Ended:
        """Train, or read what came of it; warm weights are part of the budget."""
        config = seeded(config, seed)
        done = json.loads(self.path.read_text()) if self.path and self.path.exists() else {}
        key = config.model_dump_json()
        if key not in done:
            done[key] = asdict(train(config, self.store))
            if self.path:
                self.path.write_text(json.dumps(done))
        return Ended(**done[key])


def seeded(config: TrialConfig, seed: int) -> TrialConfig:
    """With this seed, also of warm weights, which take their patches from the budget."""
    settings: dict[str, object] = {"seed": seed}
    if config.warm_start is not None:
        first = round(WARM * config.patches)
        settings["patches"] = config.patches - first
        settings["warm_start"] = WarmStart(patches=first, seed=seed)
    return config.model_copy(update=settings)


def train(config: TrialConfig, store: PatchStore) -> Ended:
    """To the end of its budget, or until it fails."""
    ended, started = Ended(), time.process_time()
    with tempfile.TemporaryDirectory() as artifacts:
        job = TrialEnvironment(
            store=store,
            split=store.split(),
            artifacts=ArtifactCache(artifacts),
            report_every=config.patches // REPORTS,
            validation_points=max(store.counts),
            computing=ComputeConfig(device="cpu"),
        )
        for report in build_trial(config, job).reports():
            ended.status, ended.metrics = report.status, report.metrics
            if "train/stage" in report.metrics:
                ended.stages.append(round(report.metrics["train/stage"]))
    ended.seconds = time.process_time() - started
    return ended


def row(name: str, runs: list[Ended]) -> str:
    """Mean ± standard deviation of the runs that completed."""
    done = [run for run in runs if run.status == "completed"]
    cells = [f"{statistics.mean(run.seconds for run in runs):.0f}"]
    for score in SCORES:
        values = [run.metrics[f"val/{score}"] for run in done]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{statistics.mean(values):.3f} ± {spread:.3f}" if values else "–")
    stages = ", ".join("".join(map(str, run.stages)) for run in done if run.stages)
    failed = ", ".join(run.status for run in runs if run.status != "completed")
    ends = "; ".join(part for part in (f"stages {stages}" if stages else "", failed) if part)
    return f"| {name} | {' | '.join(cells)} | {ends or 'completed'} |"


def log(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
