"""Batch hard on large batches without collapse: how S and K should grow (R3's stepped schedule).

Large batches and many views of a point make hard triplets, and from random weights they collapse.
R3 started with small batches and raised them manually as far as the loss allowed. Here a schedule
depends on the loss (``stepped``) or on the budget (``fixed``), or has the last batch from the start
(``one``). A trial that is not stopped early takes about a minute and a half of one core. On the
whole of N-HPatches, with a GPU: ``WIDTH = 1``, ``BUDGET = 5_000_000``, ``--data STORE``.
"""

import optuna

from hpsearch.config import (
    Adam,
    Augmentation,
    BatchHard,
    FixedSteps,
    HardMargin,
    L2Net,
    PKSampler,
    Sampling,
    SoftMargin,
    Stepped,
    TrialConfig,
    WarmStart,
)
from hpsearch.search.search import Search

BUDGET = 128_000  # patches a trial; batches of 1024 need more of them than small ones
WIDTH = 0.25
TURNS = {
    "none": Augmentation(),
    "patch": Augmentation(turns="patch"),  # R3: nearly doubled the loss
    "point": Augmentation(turns="point"),  # R3 proposed it and did not try
}


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Suggest a schedule; without normalized descriptors, as in R3, collapse is likely."""
    soft = trial.suggest_categorical("margin", ["hard", "soft"]) == "soft"
    margin = SoftMargin() if soft else HardMargin(alpha=trial.suggest_float("alpha", 0.1, 2.0))
    # R3 began with the weights of the baseline; these are trained once for all trials.
    warm = trial.suggest_categorical("warm_start", [False, True])
    return TrialConfig(
        descriptor=L2Net(width=WIDTH, dropout=0.1, input_norm=True, bn_momentum=0.1),
        loss=BatchHard(margin=margin),
        sampler=suggest_sampler(trial),
        optimizer=Adam(lr=trial.suggest_float("lr", 2e-5, 2e-2, log=True)),
        augmentation=TURNS[trial.suggest_categorical("turns", list(TURNS))],
        warm_start=WarmStart(patches=24_000) if warm else None,
        patches=BUDGET,
    )


def suggest_sampler(trial: optuna.Trial) -> Sampling:
    """Suggest the final batch and the schedule that leads to it."""
    last = trial.suggest_categorical("last_batch", [128, 256, 512, 1024])
    views = trial.suggest_categorical("last_views", [2, 4, 8, 16])
    steps = trial.suggest_categorical("steps", ["one", "fixed", "stepped"])
    if steps == "one":
        return PKSampler(groups=last // views, views=views)
    first = trial.suggest_categorical("first_batch", [32, 64])
    stages = doubled(first, last, views)
    if steps == "fixed":
        return FixedSteps(
            stages=stages, milestones=tuple(i / len(stages) for i in range(1, len(stages)))
        )
    return Stepped(
        stages=stages,
        below=trial.suggest_float("below", 0.02, 0.4),
        window=trial.suggest_categorical("window", [1024, 4096]),
        retry_after=16_384 if trial.suggest_categorical("retry", [False, True]) else None,
    )


def doubled(first: int, last: int, views: int) -> tuple[PKSampler, ...]:
    """Stages that double from ``first`` to ``last`` patches per batch, up to ``views`` views."""
    steps = (last // first).bit_length() - 1
    growing = [(first * 2**i, min(views, 2 * 2**i)) for i in range(steps)]
    stages = [*growing, (last, views)]
    return tuple(PKSampler(groups=patches // k, views=k) for patches, k in stages)


R3 = {"margin": "soft", "warm_start": True, "lr": 2e-4, "turns": "none", "last_batch": 1024,
      "last_views": 8, "steps": "stepped", "first_batch": 64, "below": 0.1, "window": 4096,
      "retry": False}  # fmt: skip
"""R3's best, with its own rate and its 64, 128, (256, 512,) 1024 patches of 2 to 8 views."""

SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=16_000,
    trials=40,
    initial_points=(R3, {**R3, "lr": 2e-3}),  # short budgets want higher rates
    baseline=TrialConfig(descriptor=L2Net(width=WIDTH), patches=BUDGET),
)
