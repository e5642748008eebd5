"""Minutes on a laptop: which loss, batch and optimiser make a small descriptor of noisy patches.

Copy this file to begin a space of your own; `hpsearch search` takes any path.
"""

import optuna

from hpsearch.config import (
    SGD,
    Adam,
    BatchAll,
    BatchHard,
    Denoised,
    DenoiserTrial,
    HardMargin,
    Input,
    L2Net,
    Loss,
    Margin,
    Noisy,
    Optimiser,
    RandomTriplets,
    Sampler,
    ShallowUNet,
    SoftMargin,
    SxK,
    TrialConfig,
    Triplet,
)
from hpsearch.search.search import Search

BUDGET = 48_000
WIDTH = 0.25  # a sixteenth of the multiplications: a laptop sees thousands of patches a second
DENOISER = DenoiserTrial(network=ShallowUNet(width=0.5), patches=12_000)
BATCH = 192  # patches a step, whatever the sampler, so that trials differ in more than step count


def suggest(trial: optuna.Trial) -> TrialConfig:
    """What is not suggested here stays the coursework's baseline."""
    loss, sampler = suggest_loss(trial)
    hardnet_ending = trial.suggest_categorical("ending", ["linear", "hardnet"]) == "hardnet"
    return TrialConfig(
        input=suggest_input(trial),
        descriptor=L2Net(
            width=WIDTH,
            dropout=trial.suggest_float("dropout", 0.0, 0.3),
            patch_norm=trial.suggest_categorical("patch_norm", [False, True]),
            final_norm=hardnet_ending,
            unit_norm=hardnet_ending,
        ),
        loss=loss,
        sampler=sampler,
        optimiser=suggest_optimiser(trial),
        patches=BUDGET,
    )


def suggest_loss(trial: optuna.Trial) -> tuple[Loss, Sampler]:
    """Random triplets are slow but safe; batch hard is fast, or collapses."""
    margin: Margin = HardMargin()
    if trial.suggest_categorical("margin", ["hard", "soft"]) == "soft":
        margin = SoftMargin()
    kind = trial.suggest_categorical("loss", ["triplet", "batch_all", "batch_hard"])
    if kind == "triplet":
        return Triplet(distance="euclidean", margin=margin), RandomTriplets(batch=BATCH // 3)
    views = trial.suggest_categorical("views", [2, 4, 8])
    sampler = SxK(groups=BATCH // views, views=views)
    return (BatchAll if kind == "batch_all" else BatchHard)(margin=margin), sampler


def suggest_input(trial: optuna.Trial) -> Input:
    """Noisy as they come, or through one denoiser that all trials share."""
    if trial.suggest_categorical("input", ["noisy", "denoised"]) == "noisy":
        return Noisy()
    return Denoised(denoiser=DENOISER)


def suggest_optimiser(trial: optuna.Trial) -> Optimiser:
    """Each with the decades of learning rate in which it works at all."""
    if trial.suggest_categorical("optimiser", ["sgd", "adam"]) == "sgd":
        return SGD(lr=trial.suggest_float("sgd_lr", 1e-2, 1.0, log=True), momentum=0.9)
    return Adam(lr=trial.suggest_float("adam_lr", 3e-4, 3e-2, log=True))


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=6_000,
    trials=16,
    baseline=TrialConfig(
        input=Denoised(denoiser=DENOISER), descriptor=L2Net(width=WIDTH), patches=BUDGET
    ),
    data="mini",
    seed=1,
)
