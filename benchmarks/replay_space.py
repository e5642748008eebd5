"""The space whose learning curves are recorded: every loss and margin, fixed or stepped batches.

Wide on purpose. Learning rates span three decades and more, descriptors may be unit without the
normalization that keeps them apart, margins may be larger than any distance: so it holds bad, slow
and collapsing configurations as well as good ones. ``record_curves.py`` draws from it,
``search.py`` searches what was drawn.
"""

import optuna

from hpsearch.config import (
    SGD,
    Adam,
    BatchAll,
    BatchHard,
    Constant,
    Contrastive,
    Cosine,
    FaceNet,
    FixedSteps,
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
    Stepped,
    TrialConfig,
    Triplet,
)
from hpsearch.search.search import Search

BUDGET, REPORT = 24_000, 2_000  # patches
LOSSES = (
    "triplet",
    "facenet",
    "contrastive",
    "batch_all",
    "batch_hard",
    "in_batch_hard",
    "hardnet",
    "percentile",
)
UNIT = ("facenet", "in_batch_hard", "hardnet", "percentile")


def suggest(trial: optuna.Trial, *, highest_adam: float = 3e-2) -> TrialConfig:
    kind = trial.suggest_categorical("loss", LOSSES)
    unit = kind in UNIT or trial.suggest_categorical("unit_norm", [False, True])
    return TrialConfig(
        descriptor=L2Net(
            width=0.125,
            dropout=trial.suggest_float("dropout", 0.0, 0.4),
            input_norm=trial.suggest_categorical("patch_norm", [False, True]),
            unit_norm=unit,
            final_norm=unit and trial.suggest_categorical("final_norm", [True, False]),
            bn_momentum=0.1,
        ),
        loss=suggest_loss(trial, kind),
        sampler=suggest_sampler(trial, kind),
        optimizer=suggest_optimizer(trial, highest_adam),
        schedule=Cosine() if trial.suggest_categorical("cosine", [False, True]) else Constant(),
        patches=BUDGET,
    )


def suggest_margin(trial: optuna.Trial) -> Margin:
    if trial.suggest_categorical("margin", ["hard", "soft"]) == "soft":
        return SoftMargin()
    return suggest_hard(trial)


def suggest_hard(trial: optuna.Trial) -> HardMargin:
    return HardMargin(alpha=trial.suggest_float("alpha", 0.01, 2.0, log=True))


def suggest_loss(trial: optuna.Trial, kind: str) -> Loss:
    match kind:
        case "triplet":
            distances = ["euclidean", "squared", "mean_squared"]
            distance = trial.suggest_categorical("triplet_distance", distances)
            return Triplet(distance=distance, margin=suggest_margin(trial))
        case "facenet":
            return FaceNet(margin=suggest_hard(trial))
        case "contrastive":
            return Contrastive(margin=trial.suggest_float("radius", 0.3, 3.0, log=True))
        case "batch_all" | "batch_hard":
            distance = trial.suggest_categorical("distance", ["euclidean", "squared"])
            loss = BatchAll if kind == "batch_all" else BatchHard
            return loss(distance=distance, margin=suggest_margin(trial))
        case "in_batch_hard":
            return InBatchHard(margin=suggest_margin(trial))
        case "hardnet":
            return HardNet(margin=suggest_margin(trial))
        case _:
            q = trial.suggest_float("q", 0.0, 20.0)
            combine = trial.suggest_categorical("combine", ["mean", "min"])
            return Percentile(quantile=q, combine=combine, margin=suggest_margin(trial))


def suggest_sampler(trial: optuna.Trial, kind: str) -> Sampling:
    batch = trial.suggest_categorical("batch", [64, 128, 256, 512])
    if kind in ("triplet", "facenet", "contrastive"):
        return RandomTriplets(batch=batch // 3)
    if kind not in ("batch_all", "batch_hard"):
        return Pairs(batch=batch // 2)
    views = trial.suggest_categorical("views", [2, 4, 8])
    last = PKSampler(groups=batch // views, views=views)
    schedule = trial.suggest_categorical("steps", ["one", "fixed", "stepped"])
    if schedule == "one" or last.patches == 64:
        return last
    halvings = range((last.patches // 64).bit_length() - 1, -1, -1)
    stages = tuple(_smaller(last, 2**n) for n in halvings)
    if schedule == "stepped":
        below = trial.suggest_float("below", 0.05, 0.4)
        return Stepped(stages=stages, below=below, window=1_500)
    return FixedSteps(
        stages=stages, milestones=tuple(n / len(stages) for n in range(1, len(stages)))
    )


def _smaller(stage: PKSampler, factor: int) -> PKSampler:
    """A batch of so many times fewer patches, with fewer views first: many views collapse."""
    views = max(2, stage.views // factor)
    return PKSampler(groups=stage.patches // factor // views, views=views)


def suggest_optimizer(trial: optuna.Trial, highest_adam: float) -> Optimizer:
    if trial.suggest_categorical("optimiser", ["sgd", "adam"]) == "sgd":
        return SGD(lr=trial.suggest_float("sgd_lr", 1e-3, 3.0, log=True), momentum=0.9)
    return Adam(lr=trial.suggest_float("adam_lr", 1e-5, highest_adam, log=True))


SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=REPORT,
    validation_points=24,
    trials=100,
    baseline=TrialConfig(descriptor=L2Net(width=0.125), patches=BUDGET),
    data="mini",
)
