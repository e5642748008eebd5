"""Comparison of losses and margins for descriptors of noisy patches.

On the embedded set a trial that is not stopped early takes about a minute of one core. On the whole
of N-HPatches, with a GPU: ``WIDTH = 1``, ``BUDGET = 5_000_000``, ``--data STORE``. Copy this file
to start a space of your own.
"""

import optuna

from hpsearch.config import (
    SGD,
    Adam,
    BatchAll,
    BatchHard,
    Contrastive,
    Cosine,
    FaceNet,
    HardMargin,
    HardNet,
    InBatchHard,
    L2Net,
    Loss,
    Margin,
    Optimizer,
    Pairs,
    Percentile,
    PKSampler,
    RandomTriplets,
    Sampling,
    SoftMargin,
    TrialConfig,
    Triplet,
)
from hpsearch.search.search import Search

BUDGET = 96_000  # patches a trial
WIDTH = 0.25  # a sixteenth of the multiplications of the published network

ON_TRIPLETS = ["triplet", "facenet", "contrastive"]
ON_GROUPS = ["batch_all", "batch_hard"]
ON_PAIRS = ["in_batch_hard", "hardnet", "percentile"]
FOR_UNIT_DESCRIPTORS = ["facenet", *ON_PAIRS]


def suggest(trial: optuna.Trial) -> TrialConfig:
    """The loss decides what else there is to choose."""
    kind = trial.suggest_categorical("loss", [*ON_TRIPLETS, *ON_GROUPS, *ON_PAIRS])
    unit = kind in FOR_UNIT_DESCRIPTORS or trial.suggest_categorical("unit_norm", [False, True])
    return TrialConfig(
        descriptor=L2Net(
            width=WIDTH,
            dropout=trial.suggest_float("dropout", 0.0, 0.3),
            input_norm=True,
            # Unit descriptors collapse onto one point unless batch normalization centers them.
            final_norm=unit,
            unit_norm=unit,
            bn_momentum=0.1,  # the baseline's 0.01 needs more steps than there are here
        ),
        loss=suggest_loss(trial, kind),
        sampler=suggest_sampler(trial, kind),
        optimizer=suggest_optimizer(trial),
        schedule=Cosine(),
        patches=BUDGET,
    )


def suggest_loss(trial: optuna.Trial, kind: str) -> Loss:
    """Names are shared where a value means the same, so that one loss learns from another."""
    match kind:
        case "contrastive":
            return Contrastive(margin=trial.suggest_float("radius", 0.3, 3.0, log=True))
        case "facenet":
            return FaceNet(margin=suggest_hinge(trial))
        case "triplet":
            baseline = trial.suggest_categorical("mean_squared", [False, True])
            distance = "mean_squared" if baseline else "euclidean"
            return Triplet(distance=distance, margin=suggest_margin(trial))
        case "batch_all" | "batch_hard":
            # Squared distances make collapse likelier; they are here to see by how much.
            squared = trial.suggest_categorical("squared", [False, True])
            distance = "squared" if squared else "euclidean"
            loss = BatchAll if kind == "batch_all" else BatchHard
            return loss(distance=distance, margin=suggest_margin(trial))
        case "in_batch_hard":
            return InBatchHard(margin=suggest_margin(trial))
        case "hardnet":
            return HardNet(margin=suggest_margin(trial))
        case _:
            q = trial.suggest_categorical("q", [2, 5, 10, 15])  # 0 would be in_batch_hard again
            return Percentile(quantile=q, margin=suggest_margin(trial))


def suggest_margin(trial: optuna.Trial) -> Margin:
    """Suggest a soft margin, or a hinge, which has zero loss for violations below −α."""
    if trial.suggest_categorical("margin", ["hard", "soft"]) == "soft":
        return SoftMargin()
    return suggest_hinge(trial)


def suggest_hinge(trial: optuna.Trial) -> HardMargin:
    """Suggest a margin; unit descriptors are at most 2 apart, so a larger α is never reached."""
    return HardMargin(alpha=trial.suggest_float("alpha", 0.01, 2.0, log=True))


def suggest_sampler(trial: optuna.Trial, kind: str) -> Sampling:
    """Equal patches a batch for every loss, so that none has more steps than another."""
    batch = trial.suggest_categorical("batch", [96, 192, 384])
    if kind in ON_TRIPLETS:
        return RandomTriplets(batch=batch // 3)
    if kind in ON_PAIRS:
        return Pairs(batch=batch // 2)
    views = trial.suggest_categorical("views", [2, 4, 8])
    return PKSampler(groups=batch // views, views=views)


def suggest_optimizer(trial: optuna.Trial) -> Optimizer:
    """Each with the learning rates at which it works at all."""
    if trial.suggest_categorical("optimiser", ["sgd", "adam"]) == "sgd":
        return SGD(lr=trial.suggest_float("sgd_lr", 1e-2, 3.0, log=True), momentum=0.9)
    return Adam(lr=trial.suggest_float("adam_lr", 1e-4, 3e-2, log=True))


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=8_000,
    trials=40,
    baseline=TrialConfig(descriptor=L2Net(width=WIDTH), patches=BUDGET),
)
