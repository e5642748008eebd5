"""Short runs of every kind of training, to see whether two commits train alike.

Run the list with each commit into a folder of its own, and compare, to the last digit:

    hpsearch reproduce --list benchmarks/alike_runs.py --results one     (with one commit)
    hpsearch reproduce --list benchmarks/alike_runs.py --results another (with the other)
    python benchmarks/alike_runs.py one/runs.jsonl another/runs.jsonl
"""

import sys
from pathlib import Path

from hpsearch.config import (
    SGD,
    Adam,
    AdamW,
    Augmentation,
    BatchHard,
    Clean,
    Cosine,
    Denoised,
    DenoiserTraining,
    HardNet,
    L2Net,
    MinedTriplets,
    Noisy,
    Pairs,
    PKSampler,
    RandomTriplets,
    ShallowUNet,
    SoftMargin,
    Stepped,
    TrialConfig,
    Triplet,
    WarmStart,
)
from hpsearch.tracking.run_table import differences, read_rows

DATA = "tiny"
EVALUATION = {"reports": 3, "validation_points": 8, "test_points": 8}
NET = L2Net(width=0.125, input_norm=True, bn_momentum=0.1)
STAGES = (PKSampler(groups=8, views=2), PKSampler(groups=8, views=3))
RUNS = [
    (
        "stepped after baseline weights",
        TrialConfig(
            input=Clean(),
            descriptor=NET,
            loss=BatchHard(margin=SoftMargin()),
            sampler=Stepped(stages=STAGES, retry_after=4096),
            optimizer=Adam(lr=2e-3),
            warm_start=WarmStart(patches=2000),
            patches=24_000,
            evaluate_on="clean",
        ),
    ),
    (
        "augmented noisy pairs, cosine",
        TrialConfig(
            input=Noisy(),
            descriptor=NET.model_copy(update={"unit_norm": True}),
            loss=HardNet(),
            sampler=Pairs(batch=32),
            optimizer=AdamW(lr=5e-3),
            schedule=Cosine(),
            augmentation=Augmentation(turns="point", crop=0.2, brightness=5, contrast=0.1),
            patches=9000,
        ),
    ),
    (
        "denoised, curriculum of triplets",
        TrialConfig(
            input=Denoised(
                denoiser=DenoiserTraining(network=ShallowUNet(width=0.25), patches=2000)
            ),
            descriptor=NET,
            sampler=RandomTriplets(tough_until=0.3, far_from=0.8),
            patches=9000,
        ),
    ),
    (
        "mined triplets",
        TrialConfig(
            input=Clean(),
            descriptor=NET,
            loss=Triplet(distance="euclidean"),
            sampler=MinedTriplets(candidates=600, start=0.3, every=3000),
            optimizer=SGD(lr=0.1, momentum=0.9),
            patches=9000,
            evaluate_on="clean",
        ),
    ),
]

if __name__ == "__main__":
    tables = [read_rows(Path(table)) for table in sys.argv[1:3]]
    if len(tables) != 2 or not all(tables):
        sys.exit("give two tables of runs that have rows; `hpsearch reproduce` writes them")
    unlike = differences(*tables)
    sys.stdout.write("\n".join(unlike or ["all runs are alike"]) + "\n")
    sys.exit(bool(unlike))
