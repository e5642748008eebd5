"""Five ways to train a descriptor at equal patches seen, three seeds each, on the mini set.

The coursework's baseline triplet against batch hard, soft batch hard, in-batch hard and stepped
soft batch hard, which R3 recommends. Narrow L2-Net on noisy patches; scores are mAP on all
validation points, mean and standard deviation over seeds; seconds are processor time of training
and one validation.

    python benchmarks/losses.py [--folder data] [--patches 36000] [--seeds 3] [--width 0.25]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

from hpsearch.config import (
    Adam,
    BatchHard,
    InBatchHard,
    L2Net,
    Noisy,
    Pairs,
    SoftMargin,
    Stepped,
    SxK,
    TrialConfig,
)
from hpsearch.data.embedded import embedded_store
from hpsearch.data.store import PatchStore
from hpsearch.training.artifacts import Artifacts
from hpsearch.training.trial import Job, prepare_trial

SCORES = ("mAP", "verification", "matching", "retrieval")


class Ended(NamedTuple):
    """One training."""

    status: str
    seconds: float
    metrics: dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--patches", type=int, default=36_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=float, default=0.25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    store = PatchStore.open(embedded_store("mini", options.folder))
    job = Job(
        store=store,
        split=store.split(),
        artifacts=Artifacts(str((options.folder / "artifacts").absolute())),
        report_every=options.patches,
        validation_points=max(store.counts),
        device="cpu",
    )
    say(f"{options.patches:,} patches, width {options.width}, {options.seeds} seeds")
    say(f"| training | seconds | {' | '.join(SCORES)} | ends |")
    say("|---" * (len(SCORES) + 3) + "|")
    for name, config in ways(options).items():
        seeded = [config.model_copy(update={"seed": seed}) for seed in range(options.seeds)]
        say(row(name, [train(one, job) for one in seeded]))


def ways(options: argparse.Namespace) -> dict[str, TrialConfig]:
    """The five, with what each is known to need."""
    plain = L2Net(width=options.width, norm_momentum=0.1)
    fast = Adam(lr=1e-3)
    soft = BatchHard(margin=SoftMargin())
    grown = Stepped(
        stages=(
            SxK(groups=32, views=2),
            SxK(groups=48, views=2),
            SxK(groups=48, views=4),
            SxK(groups=48, views=8),
        ),
        below=0.05,
        window=2048,
    )
    base = TrialConfig(input=Noisy(), descriptor=plain, patches=options.patches)
    changed = {
        "baseline triplet": {},
        "batch hard": {
            "loss": BatchHard(),
            "sampler": SxK(groups=48, views=4),
            "optimiser": fast,
        },
        "soft batch hard": {
            "loss": soft,
            "sampler": SxK(groups=48, views=4),
            "optimiser": fast,
        },
        "in-batch hard": {
            "descriptor": plain.model_copy(update={"unit_norm": True}),
            "loss": InBatchHard(),
            "sampler": Pairs(batch=96),
            "optimiser": fast,
        },
        "stepped soft batch hard": {
            "loss": soft,
            "sampler": grown,
            "optimiser": fast,
        },
    }
    return {
        name: TrialConfig.model_validate({**dict(base), **update})
        for name, update in changed.items()
    }


def train(config: TrialConfig, job: Job) -> Ended:
    """To the end of its budget, or until it fails."""
    trial, started = prepare_trial(config, job), time.process_time()
    *_, last = trial.reports()
    return Ended(last.status, time.process_time() - started, last.metrics)


def row(name: str, runs: list[Ended]) -> str:
    """Mean ± standard deviation of the runs that completed."""
    done = [run for run in runs if run.status == "completed"]
    cells = [f"{statistics.mean(run.seconds for run in runs):.0f}"]
    for score in SCORES:
        values = [run.metrics[f"val/{score}"] for run in done]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{statistics.mean(values):.3f} ± {spread:.3f}" if values else "–")
    ends = ", ".join(
        f"stage {r.metrics['train/stage']:.0f}" for r in done if "train/stage" in r.metrics
    )
    failed = ", ".join(run.status for run in runs if run.status != "completed")
    return f"| {name} | {' | '.join(cells)} | {ends or failed or 'completed'} |"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
