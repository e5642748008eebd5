"""The search of the frozen home: written for 0.1.0, with the names that it had; never changed."""

import optuna

from hpsearch.config import (
    SGD,
    Adam,
    BatchHard,
    Denoised,
    DenoiserTrial,
    DnCNN,
    DnCNNTransfer,
    L2Net,
    RandomTriplets,
    ShallowUNet,
    SxK,
    TrialConfig,
)
from hpsearch.search.search import Search

BUDGET = 3_840
SMALL = L2Net(width=0.0625, dropout=0.1, patch_norm=True, dimensions=8)
DENOISER = DenoiserTrial(network=ShallowUNet(width=0.125), patches=256)
ABSENT = DenoiserTrial(
    network=DnCNNTransfer(
        front=DnCNN(depth=3, channels=2), head=DnCNN(depth=3, channels=2), weights="/absent.pt"
    ),
    patches=256,
)


FAILING, COLLAPSING = 1e-2, 1e-5
"""Learning rates at which a trial cannot train; the sampler draws what lies between."""


def suggest(trial: optuna.Trial) -> TrialConfig:
    kind = trial.suggest_categorical("kind", ["triplet", "batch_hard"])
    lr = trial.suggest_float("lr", 1e-5, 1e-2, log=True)
    optimiser = Adam(lr=lr)
    if lr == COLLAPSING:  # the decay takes nine tenths of every weight at every step
        optimiser = SGD(lr=0.9, weight_decay=1.0)
    if kind == "batch_hard":
        momentum = trial.suggest_categorical("norm_momentum", [0.01, 0.1])
        return TrialConfig(
            descriptor=SMALL.model_copy(update={"norm_momentum": momentum}),
            loss=BatchHard(),
            sampler=SxK(groups=8, views=4),
            optimiser=optimiser,
            patches=BUDGET,
        )
    return TrialConfig(
        input=Denoised(denoiser=ABSENT if lr == FAILING else DENOISER),
        descriptor=SMALL,
        sampler=RandomTriplets(batch=20),
        optimiser=optimiser,
        patches=BUDGET,
    )


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=960,
    trials=12,
    reduction=2,
    first=(
        {"kind": "batch_hard", "lr": COLLAPSING, "norm_momentum": 0.01},
        {"kind": "triplet", "lr": FAILING},
        {"kind": "triplet", "lr": 1e-3},
        {"kind": "batch_hard", "lr": 1e-3, "norm_momentum": 0.01},
        {"kind": "batch_hard", "lr": 2e-5, "norm_momentum": 0.01},
        {"kind": "triplet", "lr": 3e-3},
        {"kind": "batch_hard", "lr": 3e-3, "norm_momentum": 0.01},
        {"kind": "triplet", "lr": 2e-5},
        {"kind": "batch_hard", "lr": 3e-5, "norm_momentum": 0.01},
        {"kind": "batch_hard", "lr": 5e-3, "norm_momentum": 0.01},
    ),
    baseline=TrialConfig(
        descriptor=L2Net(width=0.0625, dimensions=8),
        sampler=RandomTriplets(batch=20),
        patches=BUDGET,
    ),
    validation_points=4,
    seed=2,
)
