"""Comparison of training inputs for noisy patches: R1's table 2 and R2's figure 8.

The reports disagree. R2, with random triplets, found clean training patches best by far; R1, with
in-batch hard negatives, found denoised ones slightly better, best of all after clean ones. So both
losses are here. 5 inputs, 2 losses and 3 seeds, each to the end: 30 trials of about a minute of one
core. On the whole of N-HPatches, with a GPU: ``WIDTH = 1``, ``DENOISER = DenoiserTraining(
patches=1_000_000)``, ``BUDGET = 1_280_000``, ``--data STORE``.
"""

import optuna

from hpsearch.config import (
    SGD,
    Adam,
    Clean,
    Denoised,
    DenoiserTraining,
    HardMargin,
    InBatchHard,
    Input,
    L2Net,
    Noisy,
    Pairs,
    RandomTriplets,
    ShallowUNet,
    TrialConfig,
    Triplet,
)
from hpsearch.search.pruners import NoPruner
from hpsearch.search.samplers import Grid
from hpsearch.search.search import Search

BUDGET = 96_000  # patches a trial
WIDTH = 0.25
DENOISER = DenoiserTraining(network=ShallowUNet(width=0.25))  # trained once for all trials
INPUTS: dict[str, Input] = {
    "noisy": Noisy(),
    "clean": Clean(),  # scored on noisy patches all the same: what a denoiser is worth
    "denoised": Denoised(denoiser=DENOISER),
    "clean, scored denoised": Denoised(denoiser=DENOISER, train_on="clean"),
    "clean, then denoised": Denoised(denoiser=DENOISER, clean_warmup=0.5),
}


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Every input with the loss of either report."""
    given = INPUTS[trial.suggest_categorical("input", list(INPUTS))]
    if trial.suggest_categorical("loss", ["triplet", "in_batch_hard"]) == "triplet":
        return TrialConfig(
            input=given,
            descriptor=L2Net(width=WIDTH, bn_momentum=0.1),
            loss=Triplet(),
            sampler=RandomTriplets(batch=50),
            optimizer=SGD(lr=0.1),
            patches=BUDGET,
        )
    return TrialConfig(
        input=given,
        # Unit descriptors alone collapse onto one point in a short training.
        descriptor=L2Net(
            width=WIDTH, input_norm=True, final_norm=True, unit_norm=True, bn_momentum=0.1
        ),
        loss=InBatchHard(margin=HardMargin(alpha=0.01)),
        sampler=Pairs(batch=128),
        optimizer=Adam(lr=5e-3),
        patches=BUDGET,
    )


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=12_000,
    pruner=NoPruner(),  # a comparison, not a race: nothing is stopped
    sampler=Grid(),
    seeds_per_point=3,
    baseline=TrialConfig(
        input=Denoised(denoiser=DENOISER), descriptor=L2Net(width=WIDTH), patches=BUDGET
    ),
)
