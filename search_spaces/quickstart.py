"""Quick start, minutes on a laptop: loss, batch and optimizer of a small descriptor.

Copy this file to start a space of your own; `hpsearch search` takes any path.
"""

import optuna

from hpsearch.config import (
    SGD,
    Adam,
    BatchHard,
    Denoised,
    DenoiserTraining,
    HardMargin,
    HardNet,
    Input,
    L2Net,
    Loss,
    Noisy,
    Optimizer,
    Pairs,
    PKSampler,
    RandomTriplets,
    Sampler,
    ShallowUNet,
    SoftMargin,
    TrialConfig,
    Triplet,
)
from hpsearch.search.search import Search

BUDGET = 48_000  # patches a trial
BATCH = 192  # patches a step, whatever the sampler: trials then take the same number of steps
WIDTH = 0.25  # a sixteenth of the multiplications of the published network
DENOISER = DenoiserTraining(network=ShallowUNet(width=0.25), patches=12_000)  # one for all trials


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Suggest a configuration; other settings are those of the coursework's baseline."""
    loss, sampler = suggest_loss(trial)
    # Unit descriptors collapse onto one point unless batch normalization centers them first.
    unit = isinstance(loss, HardNet) or (
        isinstance(loss, BatchHard) and trial.suggest_categorical("unit_norm", [False, True])
    )
    return TrialConfig(
        input=suggest_input(trial),
        descriptor=L2Net(
            width=WIDTH,
            dropout=trial.suggest_float("dropout", 0.0, 0.3),
            input_norm=trial.suggest_categorical("patch_norm", [False, True]),
            final_norm=unit,
            unit_norm=unit,
            bn_momentum=0.1,  # the baseline's 0.01 needs more steps than there are here
        ),
        loss=loss,
        sampler=sampler,
        optimizer=suggest_optimizer(trial),
        patches=BUDGET,
    )


def suggest_loss(trial: optuna.Trial) -> tuple[Loss, Sampler]:
    """Suggest a loss and its sampler, from slow and stable to fast and prone to collapse."""
    match trial.suggest_categorical("loss", ["triplet", "batch_hard", "hardnet"]):
        case "triplet":
            return Triplet(), RandomTriplets(batch=BATCH // 3)
        case "batch_hard":
            margin = trial.suggest_categorical("margin", ["hard", "soft"])
            views = trial.suggest_categorical("views", [2, 4, 8])
            return (
                BatchHard(margin=SoftMargin() if margin == "soft" else HardMargin()),
                PKSampler(groups=BATCH // views, views=views),
            )
        case _:
            return HardNet(), Pairs(batch=BATCH // 2)


def suggest_input(trial: optuna.Trial) -> Input:
    """Suggest noisy patches, or patches from the shared denoiser."""
    if trial.suggest_categorical("input", ["noisy", "denoised"]) == "noisy":
        return Noisy()
    return Denoised(denoiser=DENOISER)


def suggest_optimizer(trial: optuna.Trial) -> Optimizer:
    """Each with the learning rates at which it works at all."""
    if trial.suggest_categorical("optimiser", ["sgd", "adam"]) == "sgd":
        return SGD(lr=trial.suggest_float("sgd_lr", 1e-2, 1.0, log=True), momentum=0.9)
    return Adam(lr=trial.suggest_float("adam_lr", 3e-4, 2e-2, log=True))


SOFT_BATCH_HARD = {
    "loss": "batch_hard",
    "margin": "soft",
    "views": 2,
    "unit_norm": True,
    "patch_norm": True,
    "input": "noisy",
    "optimiser": "adam",
    "adam_lr": 1e-2,
    "dropout": 0.1,
}
"""Initial point: the loss with the best scores in the coursework's reports."""

SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=12_000,  # hard mining starts slowly: at 6,000 patches it would always be pruned
    validation_points=32,  # of each sequence; validation then takes about 3 % of a trial
    trials=16,
    initial_points=(SOFT_BATCH_HARD,),
    baseline=TrialConfig(
        input=Denoised(denoiser=DENOISER), descriptor=L2Net(width=WIDTH), patches=BUDGET
    ),
    data="mini",
    seed=1,
)
