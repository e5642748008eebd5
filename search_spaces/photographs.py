r"""Descriptors for real photographs: losses after 2017, and the views that they are trained on.

What limits a descriptor on photographs is less its size than the views it is trained on: how far a
detector errs in place, scale, angle and shape, and how the light changes (LOG.md, 2026-11-27). So
this space varies small affine disturbances and brightness with loss, optimizer and rate, at small
width and budget, and then the best configurations are trained large:

    hpsearch data photos ~/Pictures --points 600 --output photographs.arrow
    hpsearch data photos ~/More --views detected --output detected.arrow
    hpsearch search search_spaces/photographs.py --data photographs.arrow \
        --validation-data detected.arrow --set objective.worst=1 \
        --set objective.direction=minimize --set objective.metric=val/fpr95
    hpsearch promote photographs --budget 5_000_000 --width 1

Patches are clean and noisy in equal parts. Validation on views that a detector finds is closer to
what counts than views of our own making; the two must show different scenes. Points have different
numbers of such views, so the objective is the false positive rate at 95 % recall, not mAP.
"""

import optuna

from hpsearch import config as c
from hpsearch.recipes import CONVNETS
from hpsearch.search.search import Search

BUDGET = 60_000  # patches a trial
WIDTH = 0.25
LOSSES = {
    "hardnet": c.HardNet(),
    "hybrid": c.HybridSimilarity(),
    "infonce": c.InfoNCE(),
    "dynamic soft margin": c.DynamicSoftMargin(),
    "percentile 2": c.Percentile(quantile=2),
}
SCHEDULES = {"cosine": c.Cosine(warmup=0.02), "linear": c.LinearDecay(), "one cycle": c.OneCycle()}


def suggest(trial: optuna.Trial) -> c.TrialConfig:
    """Pairs of unit descriptors throughout; each part in a function of its own."""
    loss = LOSSES[trial.suggest_categorical("loss", list(LOSSES))]
    second_order = trial.suggest_categorical("sosr", [False, True])
    return c.TrialConfig(
        input=c.Mixed(),
        descriptor=suggest_network(trial),
        loss=loss,
        regularizers=(c.SOSR(),) if second_order else (),
        sampler=c.Pairs(batch=trial.suggest_categorical("batch", [64, 128, 256, 512])),
        optimizer=suggest_optimizer(trial),
        schedule=SCHEDULES[trial.suggest_categorical("schedule", list(SCHEDULES))],
        augmentation=suggest_augmentation(trial),
        patches=BUDGET,
        evaluate_on="clean",
    )


def suggest_network(trial: optuna.Trial) -> c.Descriptor:
    """L2-Net with HardNet's normalized ending, or HyNet's filter response normalization."""
    if trial.suggest_categorical("network", ["l2net", "hynet"]) == "hynet":
        return CONVNETS["hynet"].model_copy(update={"width": WIDTH})
    dropout = trial.suggest_float("dropout", 0.0, 0.3)
    return c.L2Net(
        width=WIDTH, dropout=dropout, input_norm=True, final_norm=True, unit_norm=True,
        bn_momentum=0.1,
    )  # fmt: skip


def suggest_optimizer(trial: optuna.Trial) -> c.Optimizer:
    """Adam with or without decoupled weight decay, or SGD with momentum."""
    kind = trial.suggest_categorical("optimizer", ["adam", "adamw", "sgd"])
    if kind == "sgd":
        return c.SGD(lr=trial.suggest_float("sgd_lr", 0.03, 10.0, log=True), momentum=0.9)
    lr = trial.suggest_float("lr", 3e-4, 3e-2, log=True)
    if kind == "adam":
        return c.Adam(lr=lr)
    return c.AdamW(lr=lr, weight_decay=trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True))


def suggest_augmentation(trial: optuna.Trial) -> c.Augmentation:
    """Errors of a detector, and of the light."""
    return c.Augmentation(
        turns="point" if trial.suggest_categorical("turns", [False, True]) else "none",
        rotation=trial.suggest_float("rotation", 0.0, 15.0),
        scale=trial.suggest_float("scale", 0.0, 0.2),
        anisotropy=trial.suggest_float("anisotropy", 0.0, 0.2),
        shift=trial.suggest_float("shift", 0.0, 0.2),
        brightness=trial.suggest_float("brightness", 0.0, 30.0),
        contrast=trial.suggest_float("contrast", 0.0, 0.4),
    )


BASE = {"loss": "hardnet", "sosr": False, "network": "l2net", "dropout": 0.1, "batch": 256,
        "optimizer": "adam", "lr": 5e-3, "schedule": "cosine", "turns": True, "rotation": 5.0,
        "scale": 0.05, "anisotropy": 0.04, "shift": 0.05, "brightness": 0.0,
        "contrast": 0.0}  # fmt: skip
"""The configuration of the first ``hpsearch-base``, at a rate for short budgets."""
FOUND = {**BASE, "dropout": 0.14, "lr": 2.2e-2, "turns": False, "rotation": 6.9, "scale": 0.09,
         "anisotropy": 0.01, "brightness": 24.0, "contrast": 0.05}  # fmt: skip
"""The configuration that a search of 50 trials and its promotion found (LOG.md, 2026-11-28).

The built-in model ``hpsearch-base`` is this one at width 1, after 12 million patches.
"""

SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=6_000,
    trials=80,
    initial_points=(BASE, FOUND),
    baseline=c.TrialConfig(
        input=c.Mixed(),
        evaluate_on="clean",
        descriptor=c.L2Net(width=WIDTH),
        patches=BUDGET,
    ),
)
