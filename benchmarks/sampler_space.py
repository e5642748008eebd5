"""The space on which samplers and pruners are compared: every part of a trial, 25 names.

About sixteen of the names are in use at a time: the loss decides which batches there can be and
which margins, the optimizer which rates. Rates reach so far up that one run in ten collapses or
diverges. Networks have an eighth of the published channels and see 6,400 patches, so that a run to
the end takes three seconds of one core. ``record_curves.py`` draws from it.
"""

import optuna

from hpsearch.config import (
    SGD,
    Adam,
    Augmentation,
    BatchHard,
    Clean,
    Constant,
    Contrastive,
    Cosine,
    FaceNet,
    HardMargin,
    HardNet,
    InBatchHard,
    InfoNCE,
    Input,
    L2Net,
    Loss,
    Margin,
    Mixed,
    Noisy,
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

BUDGET, REPORT = 6_400, 640  # patches
LOSSES = (
    "triplet",
    "facenet",
    "contrastive",
    "batch_hard",
    "in_batch_hard",
    "hardnet",
    "percentile",
    "info_nce",
)
UNIT = ("facenet", "in_batch_hard", "hardnet", "percentile", "info_nce")


def suggest(trial: optuna.Trial) -> TrialConfig:
    kind = trial.suggest_categorical("loss", LOSSES)
    unit = kind in UNIT or trial.suggest_categorical("unit_norm", [False, True])
    return TrialConfig(
        input=suggest_input(trial),
        descriptor=L2Net(
            width=0.125,
            dropout=trial.suggest_float("dropout", 0.0, 0.5),
            input_norm=trial.suggest_categorical("input_norm", [False, True]),
            unit_norm=unit,
            final_norm=unit and trial.suggest_categorical("final_norm", [False, True]),
            descriptor_dim=trial.suggest_int("descriptor_dim", 16, 256, log=True),
            bn_momentum=0.1,
        ),
        loss=suggest_loss(trial, kind),
        sampler=suggest_sampler(trial, kind),
        optimizer=suggest_optimizer(trial),
        schedule=suggest_schedule(trial),
        augmentation=Augmentation(
            turns=trial.suggest_categorical("turns", ["none", "patch", "point"])
        ),
        patches=BUDGET,
    )


def suggest_input(trial: optuna.Trial) -> Input:
    match trial.suggest_categorical("input", ["noisy", "clean", "mixed"]):
        case "noisy":
            return Noisy()
        case "clean":
            return Clean()
        case _:
            return Mixed(noisy_share=trial.suggest_float("noisy_share", 0.1, 0.9))


def suggest_loss(trial: optuna.Trial, kind: str) -> Loss:
    match kind:
        case "contrastive":
            return Contrastive(margin=trial.suggest_float("radius", 0.3, 3.0, log=True))
        case "info_nce":
            return InfoNCE(temperature=trial.suggest_float("temperature", 0.01, 1.0, log=True))
        case "facenet":
            return FaceNet(margin=suggest_hard(trial))
        case "triplet" | "batch_hard":
            distance = trial.suggest_categorical("distance", ["euclidean", "squared"])
            loss = Triplet if kind == "triplet" else BatchHard
            return loss(distance=distance, margin=suggest_margin(trial))
        case "percentile":
            quantile = trial.suggest_float("quantile", 0.0, 20.0)
            return Percentile(quantile=quantile, margin=suggest_margin(trial))
        case _:
            loss = HardNet if kind == "hardnet" else InBatchHard
            return loss(margin=suggest_margin(trial))


def suggest_margin(trial: optuna.Trial) -> Margin:
    if trial.suggest_categorical("margin", ["hard", "soft"]) == "soft":
        return SoftMargin()
    return suggest_hard(trial)


def suggest_hard(trial: optuna.Trial) -> HardMargin:
    return HardMargin(alpha=trial.suggest_float("alpha", 0.01, 2.0, log=True))


def suggest_sampler(trial: optuna.Trial, kind: str) -> Sampling:
    batch = trial.suggest_categorical("batch", [32, 64, 128])
    if kind == "batch_hard":
        views = trial.suggest_categorical("views", [2, 4, 8])
        return PKSampler(groups=batch // views, views=views)
    if kind in ("triplet", "facenet", "contrastive"):
        tough = trial.suggest_float("tough_until", 0.0, 1.0)
        return RandomTriplets(batch=batch // 3, tough_until=tough)
    return Pairs(batch=batch // 2)


def suggest_optimizer(trial: optuna.Trial) -> Optimizer:
    decay = trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
        rate = trial.suggest_float("sgd_lr", 1e-2, 30.0, log=True)
        momentum = trial.suggest_float("momentum", 0.0, 0.98)
        return SGD(lr=rate, momentum=momentum, weight_decay=decay)
    return Adam(lr=trial.suggest_float("adam_lr", 3e-4, 1.0, log=True), weight_decay=decay)


def suggest_schedule(trial: optuna.Trial) -> Cosine | Constant:
    warmup = trial.suggest_float("warmup", 0.0, 0.4)
    kind = trial.suggest_categorical("schedule", ["constant", "cosine"])
    return Cosine(warmup=warmup) if kind == "cosine" else Constant(warmup=warmup)


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=REPORT,
    validation_points=4,
    trials=100,
    baseline=TrialConfig(descriptor=L2Net(width=0.125), patches=BUDGET),
    data="mini",
)
