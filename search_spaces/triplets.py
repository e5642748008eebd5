"""Comparison of triplets: figure 10 of R2, its curriculum, and R3's offline mining, with spread.

R2 compared regular triplets, positives from tough views, and negatives from other images, then
trained 10 epochs on tough ones, 35 on regular, 5 on far. Each is trained with three seeds and to
the end: 18 trials of about a minute of one core. On the whole of N-HPatches, with a GPU:
``WIDTH = 1``, ``BUDGET = 1_500_000`` (R2's 50 epochs of 10,000 triplets), ``--data STORE``.
"""

import optuna

from hpsearch.config import (
    SGD,
    Denoised,
    DenoiserTraining,
    L2Net,
    MinedTriplets,
    RandomTriplets,
    Sampling,
    ShallowUNet,
    TrialConfig,
    Triplet,
)
from hpsearch.search.pruners import NoPruner
from hpsearch.search.samplers import Grid
from hpsearch.search.search import Search

BUDGET = 96_000  # patches a trial
WIDTH = 0.25
BATCH = 50  # triplets a step
TRIPLETS: dict[str, Sampling] = {
    "regular": RandomTriplets(batch=BATCH),
    "tough positive": RandomTriplets(batch=BATCH, tough_until=1.0),
    "far negative": RandomTriplets(batch=BATCH, far_from=0.0),
    "curriculum": RandomTriplets(batch=BATCH, tough_until=0.2, far_from=0.9),
    # R3 describes mining, but shows no numbers. Candidates cost time, and no budget.
    "mined once": MinedTriplets(batch=BATCH, candidates=4_000, start=0.5),
    "mined often": MinedTriplets(batch=BATCH, candidates=4_000, start=0.25, every=BUDGET // 8),
}


def suggest(trial: optuna.Trial) -> TrialConfig:
    """The coursework's baseline, but for the triplets."""
    return TrialConfig(
        # R2 found it best to train on clean patches and to test on denoised ones.
        input=Denoised(
            denoiser=DenoiserTraining(network=ShallowUNet(width=WIDTH)), train_on="clean"
        ),
        descriptor=L2Net(width=WIDTH, bn_momentum=0.1),
        loss=Triplet(),
        sampler=TRIPLETS[trial.suggest_categorical("triplets", list(TRIPLETS))],
        optimizer=SGD(lr=0.1),
        patches=BUDGET,
    )


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=12_000,
    pruner=NoPruner(),  # a comparison, not a race: nothing is stopped
    sampler=Grid(),
    seeds_per_point=3,
    baseline=TrialConfig(descriptor=L2Net(width=WIDTH), patches=BUDGET),
)
