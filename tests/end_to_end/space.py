"""Seconds a search: a tenth of a network, and one trial that is bound to collapse."""

import os
from pathlib import Path

import optuna

from hpsearch.config import (
    SGD,
    Adam,
    BatchHard,
    Denoised,
    DenoiserTraining,
    L2Net,
    PKSampler,
    RandomTriplets,
    ShallowUNet,
    TrialConfig,
)
from hpsearch.search.search import Search

if noted := os.environ.get("HPSEARCH_TEST_EXECUTIONS"):
    with Path(noted).open("a") as file:
        file.write(f"{os.getpid()}\n")

BUDGET = 1_920
SMALL = L2Net(width=0.125, dropout=0.1, input_norm=True)
DENOISER = DenoiserTraining(network=ShallowUNet(width=0.25), patches=256)


def suggest(trial: optuna.Trial) -> TrialConfig:
    kind = trial.suggest_categorical("kind", ["triplet", "batch_hard", "collapsing"])
    if kind == "collapsing":  # the decay takes nine tenths of every weight at every step
        return TrialConfig(
            descriptor=SMALL,
            loss=BatchHard(),
            sampler=PKSampler(groups=8, views=4),
            optimizer=SGD(lr=0.9, weight_decay=1.0),
            patches=BUDGET,
        )
    lr = trial.suggest_float("lr", 1e-4, 1e-2, log=True)
    if kind == "triplet":
        return TrialConfig(
            input=Denoised(denoiser=DENOISER),
            descriptor=SMALL,
            sampler=RandomTriplets(batch=20),
            optimizer=Adam(lr=lr),
            patches=BUDGET,
        )
    return TrialConfig(
        descriptor=SMALL,
        loss=BatchHard(),
        sampler=PKSampler(groups=8, views=4),
        optimizer=Adam(lr=lr),
        patches=BUDGET,
    )


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=480,
    trials=6,
    initial_points=({"kind": "collapsing"}, {"kind": "triplet", "lr": 1e-3}),
    baseline=TrialConfig(
        descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=BUDGET
    ),
    data="tiny",
    validation_points=8,
)
