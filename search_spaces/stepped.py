"""Batch hard on large batches without collapse: how S and K should grow (R3's stepped schedule).

Large batches and many views of a point make hard triplets, and from random weights they collapse.
R3 started with small batches and raised them manually as far as the loss allowed. Here a schedule
depends on the loss (``stepped``) or on the budget (``fixed``), or has the last batch from the start
(``one``). It raises S before K, since on photographs a third view of each point lifted the loss
nearly as much as eight times the points (LOG.md, 2026-11-27). A trial that is not stopped early
takes about a minute and a half of one core. Patches are clean: with noise the loss of ten
photographs does not fall below its collapse value within this budget, and no schedule steps. On the
whole of N-HPatches, with a GPU: ``PATCHES = Noisy()``, ``WIDTH = 1``, ``BUDGET = 5_000_000``,
``--data STORE``.
"""

import optuna

from hpsearch.config import (
    Adam,
    Augmentation,
    BatchHard,
    Clean,
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
PATCHES = Clean()  # of training, validation and baseline
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
        input=PATCHES,
        evaluate_on=PATCHES.kind,
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
    stages = growing(first, last, views)
    if steps == "fixed":
        return FixedSteps(
            stages=stages, milestones=tuple(i / len(stages) for i in range(1, len(stages)))
        )
    look_ahead = trial.suggest_categorical("look_ahead", [True, False])
    return Stepped(
        stages=stages,
        advance_on="next_batch" if look_ahead else "this_batch",
        below=trial.suggest_float("below", 0.02, 0.4),
        window=trial.suggest_categorical("window", [1024, 4096]),
        retry_after=16_384 if trial.suggest_categorical("retry", [False, True]) else None,
    )


def growing(first: int, last: int, views: int) -> tuple[PKSampler, ...]:
    """Stages of ``first`` to ``last`` patches: S doubles at 2 views, then K grows to ``views``."""
    most = last // views
    sizes = [(min(first // 2, most) * 2**i, 2) for i in range(10)]
    few = [(groups, k) for groups, k in sizes if groups <= most]
    many = [(most, k) for k in (3, 4, 6, 8, 12, 16) if k <= views]
    return tuple(PKSampler(groups=groups, views=k) for groups, k in few + many)


R3 = {"margin": "soft", "warm_start": True, "lr": 2e-4, "turns": "none", "last_batch": 1024,
      "last_views": 8, "steps": "stepped", "first_batch": 64, "below": 0.05, "window": 4096,
      "retry": True, "look_ahead": True}  # fmt: skip
"""R3's best, with its own rate, from 64 patches of 2 views to 1024 of 8."""

SEARCH = Search(
    suggest=suggest,
    budget=BUDGET,
    report_every=16_000,
    trials=40,
    initial_points=({**R3, "lr": 1e-3}, R3),  # short budgets want higher rates
    baseline=TrialConfig(
        input=PATCHES,
        evaluate_on=PATCHES.kind,
        descriptor=L2Net(width=WIDTH),
        patches=BUDGET,
    ),
)
